"""Slices put in order along their normal, and everything that keeps them from being a volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from screener_nnu.dicom.records import Slice
from screener_nnu.errors import CaseError

# Slices nearer to each other than this (mm) lie at one position.
SAME_POSITION = 0.01
# A distance wider than the usual one by this part of it means that slices are missing.
GAP = 0.5
# More wide distances than this share of all are no gaps but another spacing.
_MANY_GAPS = 0.2
# How far a slice may lie from the regular grid, as part of the slice distance.
UNEVEN = 0.1
# How far a slice may be shifted in its plane, in pixels, before the stack counts as tilted.
SHIFT = 0.5
# Larger pixels (mm) than any scanner makes.
_MAX_PIXEL = 100.0
# Larger volumes (voxels) than any scanner makes: damaged or hostile headers.
_MAX_VOXELS = 2**31


@dataclass(frozen=True)
class Stack:
    """Slices in order, and where the volume lies.

    Attributes:
        levels: slices by position along the normal; more than one where a position is repeated.
        spacing: voxel size (mm), (x, y, z).
        origin: centre of the first voxel (mm, LPS).
        direction: 3 x 3 direction cosines, row by row, columns x, y, z.
    """

    levels: tuple[tuple[Slice, ...], ...]
    spacing: tuple[float, float, float]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def slices(self) -> int:
        """Number of positions."""
        return len(self.levels)


def stack_slices(slices: Sequence[Slice], case: str) -> Stack:
    """Orders slices of one orientation, matrix and pixel size.

    Raises:
        CaseError: they are no regular volume.
    """
    orientation, spacing = slices[0].orientation, slices[0].spacing
    if orientation is None or spacing is None or any(s.position is None for s in slices):
        raise CaseError(case, "slices do not state where they lie: export the original images")
    if not 0 < min(spacing) <= max(spacing) <= _MAX_PIXEL:
        size = f"{spacing[1]:.4g} x {spacing[0]:.4g}"
        raise CaseError(case, f"pixels of {size} mm are none (Pixel Spacing): export it again")
    axes = _axes(orientation, case)
    places = np.array([s.position for s in slices])
    heights = places @ axes[:, 2]
    order = np.lexsort(([s.number for s in slices], heights))
    levels: list[list[int]] = []
    for index in order:
        if levels and heights[index] - heights[levels[-1][0]] < SAME_POSITION:
            levels[-1].append(index)
        else:
            levels.append([index])
    if len(levels) < 2:
        raise CaseError(case, "all its slices lie at one position: export a whole volume")
    _check_size(slices[0].shape, len(levels), case)
    first = [level[0] for level in levels]
    distance = _check_heights(heights[first], case)
    _check_shift(places[[i for level in levels for i in level]], axes, min(spacing), case)
    return Stack(
        levels=tuple(tuple(slices[i] for i in level) for level in levels),
        spacing=(spacing[1], spacing[0], distance),
        origin=tuple(float(value) for value in places[first[0]]),
        direction=tuple(float(value) for value in axes.ravel()),
    )


def _axes(orientation: tuple[float, ...], case: str) -> np.ndarray:
    """Unit vectors along a row, along a column and along the normal, as columns."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if (
        not 0.9 <= min(lengths) <= max(lengths) <= 1.1
        or abs(row @ column) > 1e-3 * lengths[0] * lengths[1]
    ):
        raise CaseError(
            case, "the directions of rows and columns are not at right angles: export it again"
        )
    row = row / lengths[0]
    normal = np.cross(row, column)
    normal /= np.linalg.norm(normal)
    # Cosines are rounded in the file: the second is made exactly perpendicular to the first.
    return np.stack([row, np.cross(normal, row), normal], axis=1)


def _check_size(shape: tuple[int, int], levels: int, case: str) -> None:
    if min(shape) < 2 or shape[0] * shape[1] * levels > _MAX_VOXELS:
        raise CaseError(
            case, f"a matrix of {shape[1]} x {shape[0]} x {levels} voxels is no scan: export again"
        )


def _check_heights(heights: np.ndarray, case: str) -> float:
    """Slice distance (mm) of ascending positions along the normal (mm)."""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    wide = np.flatnonzero(steps > (1 + GAP) * usual)
    if 0 < len(wide) <= max(1, _MANY_GAPS * len(steps)):
        raise CaseError(case, _gaps(heights, steps, wide, usual))
    mean = float((heights[-1] - heights[0]) / len(steps))
    # Against the grid and not from step to step: small deviations add up.
    away = np.abs(heights - (heights[0] + mean * np.arange(len(heights))))
    if away.max() > UNEVEN * mean:
        raise CaseError(
            case,
            f"slices are unevenly spaced: {steps.min():.4g} to {steps.max():.4g} mm apart, one "
            f"lies {away.max():.3g} mm off a regular grid ({UNEVEN:.0%} of the mean distance "
            f"{mean:.4g} mm are allowed): reconstruct it with even spacing or leave it out",
        )
    return mean


def _gaps(heights: np.ndarray, steps: np.ndarray, wide: np.ndarray, usual: float) -> str:
    listed = "; ".join(
        f"{steps[i]:.1f} mm between slices {i + 1} and {i + 2} (at {heights[i]:.1f} and "
        f"{heights[i + 1]:.1f} mm)"
        for i in wide[:3]
    )
    more = f" and {len(wide) - 3} more gaps" if len(wide) > 3 else ""
    return (
        f"slices are missing, up to {steps.max():.1f} mm are empty where slices are {usual:.4g} mm "
        f"apart: {listed}{more}; complete the series or leave it out"
    )


def _check_shift(places: np.ndarray, axes: np.ndarray, pixel: float, case: str) -> None:
    """Refuses stacks whose slices do not lie exactly above each other (a tilted gantry)."""
    inside = (places - places[0]) @ axes
    aside = np.linalg.norm(inside[:, :2], axis=1)
    if aside.max() <= SHIFT * pixel:
        return
    last = inside[-1]
    # A tilt moves every slice by the same part of its height; anything else is no straight stack.
    line = np.outer(inside[:, 2] / last[2], last[:2])
    if np.linalg.norm(inside[:, :2] - line, axis=1).max() <= max(SHIFT * pixel, 0.02 * aside.max()):
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(last[:2]), last[2])))
        raise CaseError(
            case,
            f"the gantry was tilted by {degrees:.1f} degrees, so that slices are shifted against "
            "each other: take a reconstruction without tilt, or correct it with another tool "
            "(dcm2niix does) and give the NIfTI",
        )
    raise CaseError(
        case,
        f"slices are shifted against each other by up to {aside.max():.1f} mm in their plane: "
        "take a reconstruction with one field of view",
    )
