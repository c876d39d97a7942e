"""Floors of the benchmark: fixed answers, chosen on the cases that a training sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import CaseError
from screener_nnu.evaluation.metrics import dice_curve
from screener_nnu.finetuning.ball import RADII_MM, ball_scores, best_choice, read_label
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.finetuning.splits import Fold
from screener_nnu.lowshot.design import LowShotRun, Setting
from screener_nnu.preprocessing.volumes import read_array

# Shares of all voxels that thresholds mark, from all of them down to a millionth by 2 % each.
_SHARES = np.logspace(0, -6, 700)
_POOLED_VOXELS = 20_000_000


@dataclass(frozen=True)
class Floor:
    """The best fixed answer of a setting: a ball, or a threshold on a map.

    Attributes:
        choice: radius (mm) or threshold (nats), chosen on the training cases of the setting.
        dice: of each validation case, all foreground as one class.
    """

    choice: float
    dice: dict[str, float]


Floors = dict[Setting, Floor]


def central_balls(dataset: LabelledDataset, runs: Iterable[LowShotRun]) -> Floors:
    """The ball of every setting; each label is read once.

    Raises:
        CaseError: a label file cannot be read.
    """
    splits = _splits(runs)
    labels = {case: dataset.labels[case] for case in _needed(splits)}
    scores = ball_scores(labels, _ignored(dataset))
    return _chosen(RADII_MM, scores, splits)


def map_thresholds(
    dataset: LabelledDataset,
    runs: Iterable[LowShotRun],
    maps: Mapping[str, Path],
    problems: dict[str, str],
) -> Floors:
    """The threshold of every setting on anomaly maps.

    Args:
        dataset: the labelled dataset.
        runs: all trainings of the design.
        maps: map of each case (nats), in the geometry of its label; a case without one is left
            out, and so is a setting none of whose training cases has one.
        problems: gets the reason, by the name of the case, why a map cannot be used.
    """
    splits = _splits(runs)
    samples = {}
    for case in (case for case in _needed(splits) if case in maps):
        try:
            values, _ = _voxels(dataset, case, maps[case])
        except CaseError as error:
            problems[f"map of {case}"] = str(error)
            continue
        samples[case] = values[:: 1 + len(maps) * values.size // _POOLED_VOXELS]
    if not samples:
        return {}
    # Labels are not looked at.
    pooled = np.concatenate(list(samples.values()))
    thresholds = np.unique(np.quantile(pooled, 1 - _SHARES).astype(np.float32))
    scores = {
        case: dice_by_threshold(*_voxels(dataset, case, maps[case]), thresholds) for case in samples
    }
    return _chosen(thresholds.tolist(), scores, splits)


def dice_by_threshold(
    score: NDArray[np.floating], mask: NDArray[np.bool_], thresholds: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Dice of a mask with the voxels that reach each of several thresholds.

    Args:
        score, mask: of the same voxels, of one shape.
        thresholds: ascending.

    Returns:
        Dice (number of thresholds,); 0 where the mask is empty.
    """
    # A voxel is marked by every threshold up to the last one that it reaches.
    reached = np.searchsorted(thresholds, score.ravel(), side="right")
    inside = mask.ravel()
    counts = [np.bincount(reached[v], minlength=len(thresholds) + 1) for v in (inside, ~inside)]
    return np.nan_to_num(dice_curve(*counts)[1:])


def _splits(runs: Iterable[LowShotRun]) -> dict[Setting, Fold]:
    return {run.setting: run.cases for run in runs}


def _needed(splits: Mapping[Setting, Fold]) -> list[str]:
    return sorted({case for split in splits.values() for part in split.values() for case in part})


def _ignored(dataset: LabelledDataset) -> int | None:
    value = dataset.dataset_json["labels"].get("ignore")
    return None if value is None else int(value)


def _chosen(
    choices: Sequence[float], scores: Mapping[str, np.ndarray], splits: Mapping[Setting, Fold]
) -> Floors:
    floors = {}
    for setting, split in splits.items():
        training, validation = ([c for c in split[p] if c in scores] for p in ("train", "val"))
        if training:
            floors[setting] = Floor(*best_choice(choices, scores, training, validation))
    return floors


def _voxels(
    dataset: LabelledDataset, case: str, path: Path
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores, and which are foreground, of all voxels of a case that count (N,)."""
    try:
        score = read_array(path, case)
    except CaseError as error:
        raise CaseError(case, f"{path} cannot be read: delete it, and it is made again") from error
    label, _ = read_label(dataset.labels[case])
    if score.shape != label.shape:
        raise CaseError(case, f"its map {score.shape} and label {label.shape} differ in shape")
    ignored = _ignored(dataset)
    counted = np.ones(label.shape, bool) if ignored is None else label != ignored
    return score[counted], label[counted] > 0
