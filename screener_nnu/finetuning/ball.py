"""The floor under a Dice: a ball in the middle of the volume, which no image has informed.

On crops that are centred on a tumour it scores surprisingly well, so a model must beat it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from screener_nnu.errors import CaseError

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
    chosen = int(np.argmax(_mean_dice(training, ignore_label, radii)))
    return radii[chosen], float(_mean_dice(validation, ignore_label, radii)[chosen])


def _mean_dice(
    labels: Iterable[Path], ignore_label: int | None, radii: Sequence[float]
) -> np.ndarray:
    scores = []
    for path in labels:
        mask, spacing = _read_label(path, ignore_label)
        scores.append(dice_by_radius(mask, spacing, radii))
    return np.mean(scores, axis=0)


def _read_label(path: Path, ignore_label: int | None) -> tuple[np.ndarray, Sequence[float]]:
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise CaseError(path.name, "the label file cannot be read") from error
    values = SimpleITK.GetArrayFromImage(image)
    mask = (values > 0) if ignore_label is None else (values > 0) & (values != ignore_label)
    return mask, image.GetSpacing()[::-1]
