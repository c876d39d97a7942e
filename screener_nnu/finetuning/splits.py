"""Folds of a labelled dataset: nnU-Net's own five, and low-shot ones appended to them."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import write_json

SPLITS_FILE = "splits_final.json"
Fold = dict[str, list[str]]

# nnU-Net's constants; with them the file equals the one its trainer would have written.
_STOCK_SEED = 12345
_STOCK_FOLDS = 5


def default_splits(cases: Sequence[str]) -> list[Fold]:
    """nnU-Net's five folds; with fewer than five cases, as many folds as cases.

    Raises:
        ScreenerError: fewer than two cases.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    if len(cases) < 2:
        raise ScreenerError(
            f"{len(cases)} labelled case(s) cannot be split into training and validation; "
            "train on all with -f all, or add cases"
        )
    folds = min(_STOCK_FOLDS, len(cases))
    splits = generate_crossval_split(sorted(cases), seed=_STOCK_SEED, n_splits=folds)
    return [
        {part: [str(case) for case in fold[part]] for part in ("train", "val")} for fold in splits
    ]


def ensure_splits(folder: Path, cases: Sequence[str]) -> list[Fold]:
    """Reads `splits_final.json` of a preprocessed dataset, writing the default one when absent."""
    path = folder / SPLITS_FILE
    if not path.is_file():
        write_json(path, default_splits(cases))
    splits: list[Fold] = json.loads(path.read_text())
    return splits


def check_fold(splits: Sequence[Fold], fold: int, cases: Sequence[str]) -> None:
    """Checks that a fold exists and that its cases do.

    Raises:
        ScreenerError: no such fold (where nnU-Net would silently draw a random split), an empty
            part, or a case without image.
    """
    if not 0 <= fold < len(splits):
        raise ScreenerError(
            f"fold {fold} does not exist: {SPLITS_FILE} has folds 0 to {len(splits) - 1}"
        )
    for part in ("train", "val"):
        if not splits[fold][part]:
            raise ScreenerError(f"fold {fold} of {SPLITS_FILE} has no cases under '{part}'")
    unknown = sorted({*splits[fold]["train"], *splits[fold]["val"]} - set(cases))
    if unknown:
        raise ScreenerError(
            f"fold {fold} of {SPLITS_FILE} names cases that the dataset does not have: "
            + ", ".join(unknown[:5])
        )


def low_shot_fold(folder: Path, fold: int, num_cases: int, seed: int = 0) -> int:
    """A fold with few training cases and the validation cases of an existing fold.

    The training cases are a seeded draw from those of `fold`; a smaller draw of the same seed is
    part of a larger one. The fold is appended to `splits_final.json`, unless an equal one exists;
    existing folds are never changed.

    Args:
        folder: preprocessed folder that holds `splits_final.json`.
        fold: fold to draw from.
        num_cases: training cases wanted.
        seed: seed of the draw.

    Returns:
        Index of the fold to train.

    Raises:
        ScreenerError: more cases wanted than the fold trains on, or fewer than one.
    """
    path = folder / SPLITS_FILE
    splits: list[Fold] = json.loads(path.read_text())
    train = sorted(splits[fold]["train"])
    if not 1 <= num_cases <= len(train):
        raise ScreenerError(
            f"--num_cases {num_cases}: fold {fold} trains on {len(train)} cases; "
            f"ask for 1 to {len(train)}"
        )
    random.Random(f"screener low-shot {seed}").shuffle(train)
    wanted = {"train": sorted(train[:num_cases]), "val": list(splits[fold]["val"])}
    for index, existing in enumerate(splits):
        if all(sorted(existing[part]) == sorted(wanted[part]) for part in ("train", "val")):
            return index
    write_json(path, [*splits, wanted])
    return len(splits)
