"""Smooth random fields and implicit shapes: the pencils that phantoms and anomalies are drawn with.

A shape is a signed distance in mm (negative inside), so that edges carry partial volume at any
spacing and shapes are joined with `minimum` and cut with `maximum`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
Triple = tuple[float, float, float]
Axes = Sequence[FloatArray]
Place = Sequence[float] | NDArray[np.floating]


def smooth_noise(rng: np.random.Generator, axes: Axes, correlation_mm: float) -> FloatArray:
    """Gaussian random field of zero mean and unit variance at every voxel.

    Random nodes on a coarse lattice in mm are spread with a separable Gaussian kernel, so the
    field depends on the place in mm and not on the voxel size.

    Args:
        rng: source of randomness.
        axes: voxel coordinates in mm along z, y and x, each 1D and increasing.
        correlation_mm: distance over which values are alike, in mm.

    Returns:
        Field of shape (len(z), len(y), len(x)), float32.
    """
    weights = [_kernel_weights(axis, correlation_mm) for axis in axes]
    field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    for weight in weights:
        # Contracting the first axis appends the fine one last: three turns restore (z, y, x).
        field = np.tensordot(field, weight, axes=(0, 1))
    return np.ascontiguousarray(field, dtype=np.float32)


def _kernel_weights(axis: FloatArray, correlation_mm: float) -> FloatArray:
    """Weight of each lattice node for each voxel, of unit Euclidean length per voxel."""
    first = math.floor(float(axis[0]) / correlation_mm) - 2
    last = math.ceil(float(axis[-1]) / correlation_mm) + 2
    nodes = np.arange(first, last + 1) * correlation_mm
    weights = np.exp(-0.5 * ((axis[:, None] - nodes) / (0.7 * correlation_mm)) ** 2)
    return np.asarray(weights / np.linalg.norm(weights, axis=1, keepdims=True), np.float32)


def occupancy(distance: FloatArray, softness_mm: float) -> FloatArray:
    """Share of a voxel inside a shape: 0.5 on the surface, a ramp `softness_mm` wide."""
    share = np.float32(0.5) - distance / np.float32(softness_mm)
    return _within_one(share)


def ellipsoid(points: Axes, centre: Sequence[float], half_axes: Sequence[float]) -> FloatArray:
    """First-order signed distance to an ellipsoid (an ellipse for two coordinates), in mm."""
    unit: FloatArray = np.zeros(1, np.float32)
    steep: FloatArray = np.zeros(1, np.float32)
    for point, middle, half in zip(points, centre, half_axes, strict=True):
        scaled = (point - np.float32(middle)) / np.float32(half)
        unit = unit + scaled**2
        steep = steep + (scaled / np.float32(half)) ** 2
    # At the very centre the quotient below is 0 / 0; there the distance is the smallest half axis.
    radius = np.maximum(np.sqrt(unit), np.float32(1e-3))
    steep = np.maximum(np.sqrt(steep), np.float32(1e-3 / min(half_axes)))
    return np.maximum(radius * (radius - 1) / steep, np.float32(-max(half_axes)))


def capsule(points: Axes, start: Place, end: Place) -> FloatArray:
    """Distance in mm to the straight line from `start` to `end` (its axis, no radius)."""
    along = np.subtract(end, start).astype(np.float32)
    length2 = max(float(along @ along), 1e-6)
    (z, a), (y, b), (x, c) = (
        (p - np.float32(s), step) for p, s, step in zip(points, start, along, strict=True)
    )
    position = z * a + y * b + x * c
    position /= np.float32(length2)
    position = _within_one(position)
    squares: FloatArray = np.square(z - position * a)
    squares += np.square(y - position * b)
    squares += np.square(x - position * c)
    return np.sqrt(squares, out=squares)


def _within_one(values: FloatArray) -> FloatArray:
    """Values cut to 0 to 1, in place; for small arrays quicker than `clip`."""
    np.maximum(values, 0, out=values)
    return np.minimum(values, 1, out=values)
