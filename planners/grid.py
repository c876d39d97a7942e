"""Spacing, patch and pooling from physical lengths: pure functions of the data's voxel size."""

from __future__ import annotations

import numpy as np

from screener_nnu.plans import Shape, Spacing

FIELD_OF_VIEW_MM = 144.0
MIN_FEATURE_MAP_EDGE = 4
VOXEL_TOLERANCE = 1.1
MAX_GRID_POSITIONS = 32**3


def plan_spacing(median_spacing: Spacing, crop_voxels: int) -> Spacing:
    """Voxel size (z, y, x) in mm at which a crop of `crop_voxels` spans about 144 mm.

    The anisotropy of the data is kept between 1 and 1.5; the data is never upsampled. Thin-slice
    CT (1.5 x 0.75 x 0.75 mm) and 96 x 96 x 64 voxels give the paper's 2.25 x 1.5 x 1.5 mm.
    """
    axial, *in_plane = median_spacing
    ratio = float(np.clip(axial / np.mean(in_plane), 1.0, 1.5))
    edge = (FIELD_OF_VIEW_MM**3 / (crop_voxels * ratio)) ** (1 / 3)
    spacing = (max(ratio * edge, axial), max(edge, in_plane[0]), max(edge, in_plane[1]))
    return tuple(round(float(s), 4) for s in spacing)  # type: ignore[return-value]


def strides_and_kernels(
    spacing: Spacing, patch: Shape
) -> tuple[list[list[int]], list[list[int]], Shape]:
    """nnU-Net's topology for a patch: strides and kernels per stage, and the divisor per axis.

    That of a patch of one slice is a network of planes.
    """
    from nnunetv2.experiment_planning.experiment_planners.network_topology import (
        get_pool_and_conv_props,
    )

    # A network of pictures has two axes.
    axes = slice(1 if patch[0] == 1 else 0, 3)
    _, strides, kernels, _, divisor = get_pool_and_conv_props(
        spacing[axes], patch[axes], MIN_FEATURE_MAP_EDGE, 999999
    )
    plain = [[int(v) for v in stage] for stage in strides]
    z, y, x = [1, *(int(d) for d in divisor)][-3:]
    return plain, [[int(v) for v in k] for k in kernels], (z, y, x)


def plan_patch(spacing: Spacing, median_shape: Shape, crop_voxels: int) -> Shape:
    """Patch (z, y, x) in voxels: 144 mm to the nearest multiple that the strides allow.

    Args:
        spacing: voxel size of the plan in mm.
        median_shape: median size of a body crop at that spacing, which the patch never exceeds.
        crop_voxels: voxels of a crop; the patch holds at most 1.1 times as many.
    """
    wanted = [FIELD_OF_VIEW_MM / s for s in spacing]
    patch: Shape = tuple(max(1, int(round(w))) for w in wanted)  # type: ignore[assignment]
    for _ in range(8):
        _, _, divisor = strides_and_kernels(spacing, patch)
        fitted: Shape = tuple(  # type: ignore[assignment]
            nearest_multiple(w, d, int(m))
            for w, d, m in zip(wanted, divisor, median_shape, strict=True)
        )
        if np.prod(fitted) > VOXEL_TOLERANCE * crop_voxels:
            longest = int(np.argmax([f * s for f, s in zip(fitted, spacing, strict=True)]))
            for axis in _alike(longest, spacing, fitted):
                wanted[axis] = fitted[axis] - divisor[axis]
        elif fitted == patch:
            break
        patch = fitted
    return patch


def nearest_multiple(wanted: float, divisor: int, limit: int | None = None) -> int:
    """Nearest multiple of `divisor`, halves upwards, not above `limit` but at least one."""
    multiple = int(np.floor(wanted / divisor + 0.5)) * divisor
    if limit is not None:
        multiple = min(multiple, limit // divisor * divisor)
    return max(divisor, multiple)


def plan_pooling(spacing: Spacing, patch: Shape, pooled_mm: float) -> Shape:
    """Pooling per axis: the divisor of the patch nearest to `pooled_mm`, at most 32^3 positions."""
    pooling = []
    for voxel, size in zip(spacing, patch, strict=True):
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        pooling.append(min(divisors, key=lambda d: (abs(d * voxel - pooled_mm), d)))
    while np.prod([p // k for p, k in zip(patch, pooling, strict=True)]) > MAX_GRID_POSITIONS:
        finest = int(np.argmin([k * s for k, s in zip(pooling, spacing, strict=True)]))
        for axis in _alike(finest, spacing, patch):
            pooling[axis] = next(
                d for d in range(pooling[axis] + 1, patch[axis] + 1) if patch[axis] % d == 0
            )
    return tuple(pooling)  # type: ignore[return-value]


def _alike(axis: int, spacing: Spacing, sizes: Shape) -> list[int]:
    """The axis and those of the same spacing and size: in plane nothing is preferred."""
    return [i for i in range(3) if (spacing[i], sizes[i]) == (spacing[axis], sizes[axis])]
