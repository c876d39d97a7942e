"""Local deformation: tissue inside a blob bulges, shrinks, twists or is pushed aside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.blobs import Blob
from screener_nnu.synthetic.fields import FloatArray, Triple

# A movement is made of 2^4 equal small ones, one after the other: tissue is squeezed, but never
# folds over, however far it goes.
_DOUBLINGS = 4
# Tissue moves no further than this share of the blob's depth: beyond, its edge would be a crack.
_LONGEST = 0.6


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
        amplitude: longest displacement in mm; at most 0.6 of the blob's depth is used.
        rng: draws the kind of movement and its direction.

    Returns:
        Displacement in mm, (3, z, y, x), its components along z, y, x.
    """
    profile, deepest, middle = _profile(blob, spacing)
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
    velocity = flow * profile
    longest = float(np.sqrt((velocity**2).sum(axis=0)).max())
    velocity *= np.float32(min(amplitude, _LONGEST * deepest) / max(longest, 1e-6))
    return _followed(velocity, spacing)


def _followed(velocity: FloatArray, spacing: Triple) -> FloatArray:
    """Where tissue that follows a velocity (mm, (3, z, y, x)) for a unit of time comes from.

    Scaling and squaring (Arsigny et al., MICCAI 2006): the movement over twice a time is the
    movement over the time, applied twice.
    """
    index = np.indices(velocity.shape[1:], dtype=np.float32)
    step = np.asarray(spacing, np.float32).reshape(3, 1, 1, 1)
    field = velocity / np.float32(2**_DOUBLINGS)
    for _ in range(_DOUBLINGS):
        places = index + field / step
        field = field + np.stack(
            [ndimage.map_coordinates(part, places, order=1, mode="nearest") for part in field]
        )
    return field


def variation(
    before: FloatArray, blob: Blob, spacing: Triple, displacements: tuple[float, float]
) -> float:
    """How much HU differ at the distance over which tissue would move: what a movement may show.

    Args:
        before: HU of the box, (z, y, x).
        blob: where.
        spacing: voxel size in mm (z, y, x).
        displacements: smallest and largest movement in mm; tissue moves by half of it on average.

    Returns:
        Mean absolute difference in HU between voxels of the blob, over the three axes.
    """
    distance = sum(displacements) / 4
    inside = blob.weight > 0.5
    differences = []
    for axis, size in enumerate(spacing):
        lag = max(1, round(distance / size))
        order = np.moveaxis(before, axis, 0), np.moveaxis(inside, axis, 0)
        both = order[1][lag:] & order[1][:-lag]
        differences.append(np.abs(order[0][lag:] - order[0][:-lag])[both])
    together = np.concatenate(differences)
    return float(together.mean()) if together.size else 0.0


def _profile(blob: Blob, spacing: Triple) -> tuple[FloatArray, float, NDArray[np.float64]]:
    """Smooth rise from the blob's edge (0) to its deepest place (1); depth and place of that."""
    support = np.pad(blob.weight > 0, 1)
    depth = ndimage.distance_transform_edt(support, sampling=spacing)[1:-1, 1:-1, 1:-1]
    # An edge voxel lies half a voxel inside.
    depth = np.maximum(depth - 0.5 * min(spacing), 0)
    deepest = float(depth.max())
    rise = depth / max(deepest, 1e-6)
    profile = (rise**2 * (3 - 2 * rise)).astype(np.float32)
    place = np.array(np.unravel_index(int(np.argmax(depth)), depth.shape), np.float64)
    return profile, deepest, place * np.asarray(spacing)
