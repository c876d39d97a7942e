"""Irregular soft blobs: the shape of a lesion or of a synthetic anomaly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from screener_nnu.synthetic.fields import FloatArray, Triple, ellipsoid, occupancy, smooth_noise


@dataclass(frozen=True)
class Blob:
    """A weight between 0 and 1 in a box of a volume.

    Attributes:
        box: slices (z, y, x) of the volume.
        weight: share of the blob in each voxel of the box; above 0.5 means inside.
        centre: centre in mm (z, y, x), voxel 0 at 0 mm.
        radius: radius in mm.
    """

    box: tuple[slice, slice, slice]
    weight: FloatArray
    centre: Triple
    radius: float


def box_around(
    shape: Sequence[int], spacing: Sequence[float], centre: Sequence[float], reach: float
) -> tuple[tuple[slice, slice, slice], list[FloatArray]]:
    """The part of a volume within a reach of a centre along each axis.

    Args:
        shape: (Z, Y, X) of the volume.
        spacing: voxel size in mm (z, y, x).
        centre: in mm (z, y, x), voxel 0 at 0 mm.
        reach: in mm.

    Returns:
        Slices of the volume, perhaps empty, and the places of their voxels along each axis, in mm
        from the centre.
    """
    box, axes = [], []
    for count, step, middle in zip(shape, spacing, centre, strict=True):
        first = min(max(0, int(np.ceil((middle - reach) / step))), count)
        last = max(min(count, int(np.floor((middle + reach) / step)) + 1), first)
        box.append(slice(first, last))
        axes.append((np.arange(first, last) * step - middle).astype(np.float32))
    return (box[0], box[1], box[2]), axes


def draw_blob(
    rng: np.random.Generator,
    shape: Sequence[int],
    spacing: Triple,
    centre: Triple,
    radius: float,
    edge_mm: float,
) -> Blob:
    """Draws a blob around a place, cut at the border of the volume.

    Half of the blobs are balls with a noisy surface, half are unions of a few ellipsoids.

    Args:
        rng: source of randomness.
        shape: (Z, Y, X) of the volume.
        spacing: voxel size in mm (z, y, x).
        centre: centre in mm (z, y, x), voxel 0 at 0 mm.
        radius: mean radius in mm.
        edge_mm: width of the soft edge in mm.

    Returns:
        The blob; its weight is empty when it lies outside the volume.
    """
    where, axes = box_around(shape, spacing, centre, 1.7 * radius + edge_mm)
    if min(len(axis) for axis in axes) == 0:
        return Blob(where, np.zeros([len(axis) for axis in axes], np.float32), centre, radius)
    distance = (_lumpy_ball if rng.uniform() < 0.5 else _union)(rng, axes, radius)
    return Blob(where, occupancy(distance, edge_mm), centre, radius)


def _lumpy_ball(rng: np.random.Generator, axes: list[FloatArray], radius: float) -> FloatArray:
    """An ellipsoid whose surface moves in and out by about a quarter of its radius."""
    half_axes = radius * rng.uniform(0.75, 1.3, 3)
    surface = np.clip(smooth_noise(rng, axes, 0.7 * radius), -1.8, 1.8)
    return ellipsoid(np.ix_(*axes), (0, 0, 0), half_axes.tolist()) + 0.22 * radius * surface


def _union(rng: np.random.Generator, axes: list[FloatArray], radius: float) -> FloatArray:
    """Two to five ellipsoids that overlap, with a slightly uneven surface."""
    points = np.ix_(*axes)
    distance = np.full([len(axis) for axis in axes], np.inf, np.float32)
    for _ in range(int(rng.integers(2, 6))):
        middle = rng.uniform(-0.55, 0.55, 3) * radius
        half_axes = radius * rng.uniform(0.45, 0.95, 3)
        distance = np.minimum(distance, ellipsoid(points, middle.tolist(), half_axes.tolist()))
    return distance + np.float32(0.07 * radius) * smooth_noise(rng, axes, 0.4 * radius)
