"""Resampling with nnU-Net's own function, so that stock fine-tuning sees the same voxels.

Voxel i of n covers [i, i + 1) / n of the axis (half-pixel centres), so that mapping to a shape and
back keeps every structure in its place. Array axes are (z, y, x), spacings likewise (mm).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from screener_nnu.plans import Shape, Spacing

_NAME = "resample_torch_fornnunet"
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


def resample_to_shape(array: np.ndarray, shape: Shape) -> np.ndarray:
    """Trilinear resampling of an image (z, y, x) to a shape over the same box, float32."""
    import torch
    from nnunetv2.preprocessing.resampling.resample_torch import resample_torch_fornnunet

    # Without a separate axis the function uses the shapes alone; spacings are a formality.
    unit = (1.0, 1.0, 1.0)
    data = np.ascontiguousarray(array, dtype=np.float32)[None]
    result = resample_torch_fornnunet(
        data, shape, unit, unit, num_threads=torch.get_num_threads(), **_IMAGE
    )
    return np.asarray(result[0], dtype=np.float32)


def resample_mask_to_shape(mask: np.ndarray, shape: Shape) -> np.ndarray:
    """Nearest-neighbour resampling of a mask (z, y, x) to a shape over the same box, uint8."""
    rows = [_nearest(size, target) for size, target in zip(mask.shape, shape, strict=True)]
    return mask[np.ix_(*rows)].astype(np.uint8)


def _nearest(size: int, target: int) -> np.ndarray:
    """Index of the voxel whose span holds the centre of each target voxel, (target,)."""
    return (2 * np.arange(target) + 1) * size // (2 * target)
