"""Local deformation: tissue inside a blob bulges, shrinks, twists or is pushed aside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.blobs import Blob
from screener_nnu.synthetic.fields import FloatArray, Triple

# The steepest change of the displacement (mm per mm); below one, tissue never folds over.
_STEEPEST = 0.8


def deformed(before: FloatArray, blob: Blob, spacing: Triple, field: FloatArray) -> FloatArray:
    """Tissue of the blob, moved by a displacement field; nothing enters from outside the blob.

    Args:
        before: HU of the box, (z, y, x).
        blob: where.
        spacing: voxel size in mm (z, y, x).
        field: output of `displacement` for the blob.
    """
    index = np.indices(before.shape, dtype=np.float32)
    step = np.asarray(spacing, np.float32).reshape(3, 1, 1, 1)
    # Cubic, because linear interpolation would give the place away by its lack of noise.
    moved = ndimage.map_coordinates(before, index + field / step, order=3, mode="nearest")
    low, high = float(before.min()), float(before.max())
    touched = np.any(field != 0, axis=0)
    return np.where(touched, np.clip(moved, low, high), before).astype(np.float32)


def displacement(
    blob: Blob, spacing: Triple, amplitude: float, rng: np.random.Generator
) -> FloatArray:
    """From where tissue comes: a random bulge, pinch, twist or push, zero at the blob's edge.

    Args:
        blob: where; the field is zero wherever its weight is.
        spacing: voxel size in mm (z, y, x).
        amplitude: longest displacement in mm; less where the blob is too small for it.
        rng: draws the kind of movement and its direction.

    Returns:
        Displacement in mm, (3, z, y, x), its components along z, y, x; it changes by less than one
        mm per mm, so that tissue does not fold over.
    """
    profile, middle = _profile(blob, spacing)
    offsets = [
        (np.arange(n) * step - m).astype(np.float32)
        for n, step, m in zip(blob.weight.shape, spacing, middle, strict=True)
    ]
    z, y, x = np.meshgrid(*offsets, indexing="ij")
    direction = rng.standard_normal(3).astype(np.float32)
    a, b, c = direction / np.linalg.norm(direction)
    style = rng.choice(["bulge", "pinch", "twist", "push"])
    if style == "twist":
        flow = np.stack([b * x - c * y, c * z - a * x, a * y - b * z])
    elif style == "push":
        flow = np.stack([np.full_like(z, part) for part in (a, b, c)])
    else:
        flow = np.stack([z, y, x]) * np.float32(-1 if style == "bulge" else 1)
    field = flow * profile
    longest = float(np.sqrt((field**2).sum(axis=0)).max())
    if longest == 0:
        return field
    field *= np.float32(amplitude / longest)
    return field * np.float32(min(1.0, _STEEPEST / max(steepness(field, spacing), 1e-6)))


def steepness(field: FloatArray, spacing: Triple) -> float:
    """Largest change of a displacement (3, z, y, x) between neighbouring voxels, mm per mm."""
    steps = [
        np.sqrt((np.diff(field, axis=axis + 1) ** 2).sum(axis=0)).max(initial=0.0) / size
        for axis, size in enumerate(spacing)
    ]
    return float(np.sqrt(np.square(steps).sum()))


def _profile(blob: Blob, spacing: Triple) -> tuple[FloatArray, NDArray[np.float64]]:
    """Smooth rise from 0 at the blob's edge to 1 in its depth, and its deepest place in mm."""
    support = np.pad(blob.weight > 0, 1)
    depth = ndimage.distance_transform_edt(support, sampling=spacing)[1:-1, 1:-1, 1:-1]
    depth = np.maximum(depth - min(spacing), 0)
    deepest = np.asarray(np.unravel_index(int(np.argmax(depth)), depth.shape))
    rise = depth / max(float(depth.max()), 1e-6)
    profile = (rise**2 * (3 - 2 * rise)).astype(np.float32)
    return profile, deepest * np.asarray(spacing, np.float64)
