"""Folds of a labelled dataset: nnU-Net's own five, and low-shot ones appended to them."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError, some
from screener_nnu.locks import one_after_another
from screener_nnu.plans import write_json

logger = logging.getLogger(__name__)

SPLITS_FILE = "splits_final.json"
Fold = dict[str, list[str]]

# nnU-Net's constants; with them the file equals the one its trainer would have written.
_STOCK_SEED = 12345
_STOCK_FOLDS = 5
_WAY_OUT = "correct it, or delete it, and nnU-Net's default takes its place"


def default_splits(cases: Sequence[str]) -> list[Fold]:
    """nnU-Net's five folds; with fewer than five cases, as many folds as cases.

    Raises:
        ScreenerError: fewer than two cases.
    """
    if len(cases) < 2:
        raise ScreenerError(
            f"{len(cases)} labelled case(s) cannot be split into training and validation; "
            "train on all with -f all, or add cases"
        )
    return cross_validation(cases, min(_STOCK_FOLDS, len(cases)))


def cross_validation(cases: Sequence[str], count: int) -> list[Fold]:
    """Folds that validate on each case once, drawn as nnU-Net draws its five.

    Raises:
        ScreenerError: fewer than two folds, or more than cases.
    """
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    if not 2 <= count <= len(cases):
        raise ScreenerError(
            f"{count} folds of {len(cases)} labelled cases: ask for 2 to {len(cases)}, "
            "each of which needs a case to validate on"
        )
    splits = generate_crossval_split(sorted(cases), seed=_STOCK_SEED, n_splits=count)
    return [
        {part: [str(case) for case in fold[part]] for part in ("train", "val")} for fold in splits
    ]


def chosen_folds(
    existing: Sequence[Fold], cases: Sequence[str], count: int, folder: Path
) -> list[Fold]:
    """Folds of a cross-validation: those that the dataset came with, if they are that many.

    A split of one's own may keep scans of one patient together, or leave some out, so the first
    `count` folds are taken when they validate on no case twice. Otherwise folds are drawn, and a
    split of one's own is named in a warning.

    Args:
        existing: folds of the dataset.
        cases: of the dataset.
        count: folds wanted.
        folder: preprocessed folder, for messages.

    Raises:
        ScreenerError: fewer than two folds, more than cases, or a fold that cannot be trained on.
    """
    given = _cross_validated(existing, cases, folder)
    if given == count:
        left_out = len(set(cases) - {case for fold in existing[:given] for case in fold["val"]})
        if left_out:
            logger.info("%d cases are validated on in no fold of %s", left_out, SPLITS_FILE)
        return [{part: list(fold[part]) for part in ("train", "val")} for fold in existing[:given]]
    drawn = cross_validation(cases, count)
    if existing and not given:
        logger.warning(
            "%s holds folds that are no cross-validation; %d folds are drawn at random beside "
            "them. If scans of one patient must stay together, write such folds there first",
            SPLITS_FILE,
            count,
        )
    elif given and list(existing[:given]) != cross_validation(cases, given):
        logger.warning(
            "%s holds a split of your own with %d folds; %d folds are drawn at random beside it. "
            "If scans of one patient must stay together, ask for %d folds",
            SPLITS_FILE,
            given,
            count,
            given,
        )
    return drawn


def _cross_validated(folds: Sequence[Fold], cases: Sequence[str], folder: Path) -> int:
    """How many folds, from the first on, validate on cases of their own; 0 if fewer than two.

    Folds that were appended later validate on cases of earlier ones.

    Raises:
        ScreenerError: one of them cannot be trained on.
    """
    seen: set[str] = set()
    for number, fold in enumerate(folds):
        if set(fold["val"]) & seen:
            return number if number > 1 else 0
        check_fold(folds, number, cases, folder)
        seen |= set(fold["val"])
    return len(folds) if len(folds) > 1 else 0


def read_splits(folder: Path) -> list[Fold]:
    """Folds in `splits_final.json` of a preprocessed dataset; none where there is no such file.

    Raises:
        ScreenerError: it is damaged, or holds something else.
    """
    path = (folder / SPLITS_FILE).absolute()
    if not path.is_file():
        return []
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ScreenerError(f"{path} is not valid JSON ({error}): {_WAY_OUT}") from error
    if not isinstance(splits, list) or not splits or not all(map(_is_fold, splits)):
        raise ScreenerError(
            f'{path} must list folds, each as {{"train": ["a", "b"], "val": ["c"]}} with names of '
            f"cases: {_WAY_OUT}"
        )
    return splits


def _is_fold(fold: Any) -> bool:
    parts = [fold.get(part) for part in ("train", "val")] if isinstance(fold, dict) else [None]
    return all(isinstance(part, list) and all(isinstance(c, str) for c in part) for part in parts)


def ensure_splits(folder: Path, cases: Sequence[str]) -> list[Fold]:
    """Reads `splits_final.json` of a preprocessed dataset, writing the default one when absent."""
    with _one_writer(folder):
        splits = read_splits(folder)
        if not splits:
            splits = default_splits(cases)
            write_json(folder / SPLITS_FILE, splits)
    return splits


def _one_writer(folder: Path) -> AbstractContextManager[None]:
    """What two runs add at once is added one after the other."""
    lock, doing = folder / ".screener_splits.lock", f"adding folds to {folder.name}"
    return one_after_another(lock, "nnUNet_preprocessed", doing)


def check_fold(splits: Sequence[Fold], fold: int, cases: Sequence[str], folder: Path) -> None:
    """Checks that a fold exists and can be trained on.

    Args:
        splits: all folds.
        fold: which one.
        cases: of the dataset.
        folder: preprocessed folder, for messages.

    Raises:
        ScreenerError: no such fold (where nnU-Net would silently draw a random split), an empty
            part, a case without image, or a case that stands there twice.
    """
    path = (folder / SPLITS_FILE).absolute()
    if not 0 <= fold < len(splits):
        raise ScreenerError(
            f"fold {fold} does not exist: {path} has folds 0 to {len(splits) - 1}; ask for one of "
            "them with -f"
        )
    train, val = splits[fold]["train"], splits[fold]["val"]
    unknown = sorted({*train, *val} - set(cases))
    twice = sorted(case for case, count in Counter([*train, *val]).items() if count > 1)
    fault = ""
    if not train or not val:
        fault = f"has no cases under '{'val' if train else 'train'}'"
    elif unknown:
        fault = f"names cases that the dataset does not have ({some(unknown)})"
    elif twice:
        fault = f"names {some(twice)} twice, and no case may be trained and validated on"
    if fault:
        raise ScreenerError(f"fold {fold} of {path} {fault}: {_WAY_OUT}")


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
    splits = read_splits(folder)
    wanted = draw_low_shot(splits[fold], num_cases, seed, f"fold {fold}")
    return append_folds(folder, [wanted])[0]


def draw_low_shot(fold: Fold, num_cases: int, seed: int, name: str) -> Fold:
    """A fold with few of its training cases; a smaller draw of a seed is part of a larger one.

    Args:
        fold: fold to draw from.
        num_cases: training cases wanted.
        seed: seed of the draw.
        name: what an error calls the fold.

    Raises:
        ScreenerError: more cases wanted than the fold trains on, or fewer than one.
    """
    train = sorted(fold["train"])
    if not 1 <= num_cases <= len(train):
        raise ScreenerError(
            f"--num_cases {num_cases}: {name} trains on {len(train)} cases; "
            f"ask for 1 to {len(train)}"
        )
    random.Random(f"screener low-shot {seed}").shuffle(train)
    return {"train": sorted(train[:num_cases]), "val": list(fold["val"])}


def append_folds(folder: Path, wanted: Sequence[Fold]) -> list[int]:
    """Indices of folds in `splits_final.json`; those that are not there are appended.

    A fold with the same cases is used again, and existing folds are never changed.
    """
    with _one_writer(folder):
        splits = read_splits(folder)
        known = {_identity(fold): index for index, fold in reversed(list(enumerate(splits)))}
        before = len(splits)
        for fold in wanted:
            if _identity(fold) not in known:
                known[_identity(fold)] = len(splits)
                splits.append(fold)
        if len(splits) > before:
            write_json(folder / SPLITS_FILE, splits)
    return [known[_identity(fold)] for fold in wanted]


def _identity(fold: Fold) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(sorted(fold["train"])), tuple(sorted(fold["val"]))
