"""The floor under a Dice: a ball in the middle of the volume, which no image has informed.

On crops that are centred on a tumour it scores surprisingly well, so a model must beat it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

RADII_MM = tuple(float(radius) for radius in range(1, 151))


def dice_by_radius(
    mask: np.ndarray, spacing: Sequence[float], radii: Sequence[float] = RADII_MM
) -> np.ndarray:
    """Dice of a mask with centred balls of several radii.

    Args:
        mask: foreground (D, H, W).
        spacing: voxel size (mm), in the order of the axes.
        radii: radii (mm), ascending.

    Returns:
        Dice (number of radii,); 0 where ball and mask are both empty.
    """
    axes = [
        ((np.arange(size) - (size - 1) / 2) * step) ** 2
        for size, step in zip(mask.shape, spacing, strict=True)
    ]
    squared = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    # A voxel belongs to every ball from the first radius that reaches it.
    first = np.searchsorted(np.square(radii), squared.ravel())
    inside = np.asarray(mask, bool).ravel()
    ball = np.cumsum(np.bincount(first, minlength=len(radii) + 1))[: len(radii)]
    common = np.cumsum(np.bincount(first[inside], minlength=len(radii) + 1))[: len(radii)]
    return 2 * common / np.maximum(ball + inside.sum(), 1)


def central_ball(
    training: Iterable[Path],
    validation: Iterable[Path],
    ignore_label: int | None = None,
    radii: Sequence[float] = RADII_MM,
) -> tuple[float, float]:
    """The best fixed ball: its radius from training cases, its Dice on validation cases.

    All foreground counts as one class.

    Args:
        training: label files from which the radius is chosen.
        validation: label files on which it is judged.
        ignore_label: value of voxels that are neither foreground nor background.
        radii: radii (mm) to choose from.

    Returns:
        Radius (mm) and mean Dice over the validation cases.

    Raises:
        CaseError: a label file cannot be read.
    """
    parts = [{str(path): path for path in part} for part in (training, validation)]
    scores = ball_scores(parts[0] | parts[1], ignore_label, radii)
    radius, dice = best_choice(radii, scores, list(parts[0]), list(parts[1]))
    return radius, float(np.mean(list(dice.values())))


def ball_scores(
    labels: Mapping[str, Path],
    ignore_label: int | None = None,
    radii: Sequence[float] = RADII_MM,
) -> dict[str, np.ndarray]:
    """Dice (number of radii,) of each case with centred balls, by the case's name.

    Raises:
        CaseError: a label file cannot be read.
    """
    scores = {}
    for case, path in labels.items():
        values, spacing = read_label(path)
        mask = (values > 0) if ignore_label is None else (values > 0) & (values != ignore_label)
        scores[case] = dice_by_radius(mask, spacing, radii)
    return scores


def best_choice(
    choices: Sequence[float],
    scores: Mapping[str, np.ndarray],
    training: Sequence[str],
    validation: Sequence[str],
) -> tuple[float, dict[str, float]]:
    """The choice with the best mean over the training cases, and its score in validation cases.

    Args:
        choices: radii, thresholds or whatever is chosen from.
        scores: of each choice (number of choices,), by case.
        training, validation: names of cases.
    """
    best = int(np.argmax(np.mean([scores[case] for case in training], axis=0)))
    return float(choices[best]), {case: float(scores[case][best]) for case in validation}


def read_label(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Values (D, H, W) of a label file, and its spacing (mm) in the order of the axes.

    Raises:
        CaseError: the file cannot be read, or holds other values than whole numbers.
    """
    from screener_nnu.preprocessing.volumes import read_geometry, read_labels

    spacing = read_geometry(path, path.name).spacing
    return read_labels(path, path.name), spacing[::-1]
