"""Normalised surface Dice: the share of two surfaces that lie within a tolerance of each other.

References:
    Nikolov et al., Deep learning to achieve clinically applicable segmentation of head and neck
    anatomy for radiotherapy, https://arxiv.org/abs/1809.04430
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def normalised_surface_dice(
    prediction: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    spacing: Sequence[float],
    tolerance: float,
) -> float:
    """Share of the boundary voxels of both masks that lie near the other mask's boundary.

    A boundary voxel touches, by one of its six faces, a voxel that is not of the mask, or the edge
    of the image. Distances are taken between centres of voxels. Each boundary voxel counts the
    same, where the paper weighs pieces of surface by their area.

    Args:
        prediction, reference: masks (D, H, W).
        spacing: voxel size (mm), in the order of the axes.
        tolerance: distance (mm) up to which a boundary counts as found.

    Returns:
        0 to 1; 0 when one mask is empty, NaN when both are.

    Example:
        >>> square = np.zeros((1, 6, 6), bool)
        >>> square[0, 1:4, 1:4] = True
        >>> normalised_surface_dice(square, np.roll(square, 1, axis=2), (1, 1, 1), 1.0)
        1.0
    """
    prediction, reference = np.asarray(prediction, bool), np.asarray(reference, bool)
    if prediction.shape != reference.shape:
        raise ValueError(f"masks of shapes {prediction.shape} and {reference.shape}")
    if not (prediction.any() and reference.any()):
        return 0.0 if prediction.any() or reference.any() else float("nan")
    box = _bounding_box(prediction | reference)
    surfaces = [_boundary(mask[box]) for mask in (prediction, reference)]
    near = [
        np.count_nonzero(_within(other, spacing, tolerance) & own)
        for own, other in (surfaces, surfaces[::-1])
    ]
    return float(sum(near) / sum(np.count_nonzero(surface) for surface in surfaces))


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion

    inside: NDArray[np.bool_] = binary_erosion(mask)
    return mask & ~inside


def _within(
    surface: NDArray[np.bool_], spacing: Sequence[float], tolerance: float
) -> NDArray[np.bool_]:
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(~surface, sampling=tuple(spacing))
    # A distance that equals the tolerance counts, however spacing was rounded in a file.
    within: NDArray[np.bool_] = distance <= tolerance * (1 + 1e-5)
    return within


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Both surfaces lie in it, so that distances between them need no more."""
    from scipy.ndimage import find_objects

    box: tuple[slice, ...] = find_objects(mask.astype(np.uint8))[0]
    return box
