"""Resampling that equals nnU-Net's own function, so that stock fine-tuning sees the same voxels.

Voxel i of n covers [i, i + 1) / n of the axis (half-pixel centres), so that mapping to a shape and
back keeps every structure in its place. Array axes are (z, y, x), spacings likewise (mm).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from screener_nnu.plans import Range, Shape, Spacing

if TYPE_CHECKING:
    import torch

_NAME = "resample_torch_fornnunet"
# Voxels of a piece: it stays in the cache of a processor.
_SLAB_VOXELS = 1 << 20
_IMAGE = {"is_seg": False, "force_separate_z": False, "memefficient_seg_resampling": False}

# Names and arguments of the resampling functions of a plan's configuration.
RESAMPLING_DATA: dict[str, Any] = {"name": _NAME, "kwargs": dict(_IMAGE)}
RESAMPLING_SEG: dict[str, Any] = {"name": _NAME, "kwargs": {**_IMAGE, "is_seg": True}}
RESAMPLING_PROBABILITIES: dict[str, Any] = {"name": _NAME, "kwargs": dict(_IMAGE)}


def new_shape(shape: Shape, spacing: Spacing, new_spacing: Spacing) -> Shape:
    """Shape at another spacing, by nnU-Net's rule; no axis vanishes."""
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

    z, y, x = (max(int(n), 1) for n in compute_new_shape(shape, spacing, new_spacing))
    return z, y, x


def resample(array: np.ndarray, spacing: Spacing, new_spacing: Spacing) -> np.ndarray:
    """Trilinear resampling of an image (z, y, x) to another spacing, float32.

    Clip the image first: nnU-Net normalises before it resamples.
    """
    z, y, x = array.shape
    return resample_to_shape(array, new_shape((z, y, x), spacing, new_spacing))


def resample_to_shape(array: np.ndarray, shape: Shape, bounds: Range | None = None) -> np.ndarray:
    """Trilinear resampling of an image (z, y, x) to a shape over the same box, float32.

    Args:
        array: (z, y, x), any number type.
        shape: of the result.
        bounds: lowest and highest value, between which the image is clipped *before*.
    """
    result = np.empty(shape, dtype=np.float32)
    for first, rows in resampled_slabs(array, shape, bounds):
        result[first : first + len(rows)] = rows
    return result


def resample_colours(array: np.ndarray, shape: Shape, bounds: Range | None = None) -> np.ndarray:
    """`resample_to_shape` of an image (z, y, x), or of each colour of (C, z, y, x)."""
    if array.ndim == 3:
        return resample_to_shape(array, shape, bounds)
    return np.stack([resample_to_shape(colour, shape, bounds) for colour in array])


def resampled_slabs(
    array: np.ndarray,
    shape: Shape,
    bounds: Range | None = None,
    device: torch.device | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """The result of `resample_to_shape` in pieces, so that nothing as large is held twice.

    Only the planes that the result needs are read: of a thin-sliced scan that is shrunk to 4 mm,
    two in four.

    Args:
        array, shape, bounds: as for `resample_to_shape`.
        device: that computes; the processor by default.

    Yields:
        First plane of the piece in the result, and the piece (n, y, x), float32, which the caller
        may change.
    """
    import torch
    from torch.nn.functional import interpolate

    low, high, part_of_high = _beside(array.shape[0], shape[0])
    weight = torch.from_numpy(part_of_high)[:, None, None].to(device)

    def planes(index: np.ndarray) -> torch.Tensor:
        chosen = torch.from_numpy(np.asarray(array[index], dtype=np.float32)).to(device)
        return chosen if bounds is None else chosen.clamp_(*bounds)

    largest = max(array.shape[1] * array.shape[2], shape[1] * shape[2])
    depth = max(1, _SLAB_VOXELS // largest)
    for first in range(0, shape[0], depth):
        part = slice(first, first + depth)
        rows = planes(low[part])
        if weight[part].any():
            rows = torch.lerp(rows, planes(high[part]), weight[part])
        if tuple(rows.shape[1:]) != tuple(shape[1:]):
            lowest, highest = rows.aminmax()
            rows = interpolate(rows[None], shape[1:], mode="bilinear", align_corners=False)[0]
            if lowest <= highest:  # what rounding adds to equal values; no bounds hold for NaN
                rows = rows.clamp_(lowest, highest)
        yield first, rows.cpu().numpy()


def _beside(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The planes before and after each target plane's centre, and the share of the second.

    In float32 as torch computes them: HU at a threshold then fall on the same side of it.
    """
    centre = np.arange(target, dtype=np.float32) + np.float32(0.5)
    place = np.float32(size) / np.float32(target) * centre - np.float32(0.5)
    place = place.clip(0, size - 1)
    low = place.astype(int)
    return low, np.minimum(low + 1, size - 1), (place - low).astype(np.float32)


def resample_mask_to_shape(mask: np.ndarray, shape: Shape) -> np.ndarray:
    """Nearest-neighbour resampling of a mask (z, y, x) to a shape over the same box, uint8."""
    z, y, x = (nearest(size, target) for size, target in zip(mask.shape, shape, strict=True))
    return mask.astype(np.uint8, copy=False)[:, y][:, :, x][z]


def nearest(size: int, target: int) -> np.ndarray:
    """Index of the voxel whose span holds the centre of each target voxel, (target,)."""
    return (2 * np.arange(target) + 1) * size // (2 * target)
