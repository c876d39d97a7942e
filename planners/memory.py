"""Device memory of the self-supervised stages by formula, and the order in which numbers give way.

No device is asked: plans are made on login nodes. The constants come from two measurements, see
documentation/planning.md: nnU-Net's published memory of its residual encoder presets (5.4 bytes per
element of its feature map count, mixed precision, everything included), and the bytes that autograd
keeps for our networks (1.4 to 2.0 tensors an element), which is the lower bound a test holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from screener_nnu.planners.architecture import feature_elements, plan_architecture
from screener_nnu.planners.grid import plan_patch, plan_spacing
from screener_nnu.planners.presets import PAPER_CROP_VOXELS, PAPER_VOLUMES, Preset
from screener_nnu.plans import Shape, Spacing

BYTES_PER_ELEMENT = 5.4
BYTES_PER_PARAMETER = 16  # weight, gradient and two moments of AdamW, float32
CONTEXT_GB = 1.5
USABLE = 0.9
_HEAD_TENSORS = 8  # hidden activations, their norms and gradients of a three-layer head
_COVARIANCE_TENSORS = 4
GB = 1024**3
_MAX_VOLUMES = 16
_MIN_WIDTH = 16
_MIN_CROP_VOXELS = 24**3


@dataclass(frozen=True)
class Fit:
    """A preset made to fit: the preset with reduced numbers, its grid, estimate and reasons."""

    preset: Preset
    spacing: Spacing
    patch: Shape
    estimate_gb: float
    given_way: tuple[str, ...]


def estimate_gb(preset: Preset, spacing: Spacing, patch: Shape) -> float:
    """Memory (GB) of one step of the descriptor stage: network, head, loss and context."""
    elements, parameters = feature_elements(plan_architecture(spacing, patch, preset), patch)
    crops = 2 * preset.volumes
    rows = crops * preset.positives
    width = preset.head_width
    head_parameters = width * (preset.channels + 2 * width)
    outputs = crops * float(np.prod(patch)) * preset.channels * 4
    total = (
        crops * elements * BYTES_PER_ELEMENT
        + 2 * outputs
        + (parameters + head_parameters) * BYTES_PER_PARAMETER
        + 4 * rows * width * _HEAD_TENSORS
        + 4 * width * min(width, rows) * _COVARIANCE_TENSORS
    )
    return total / GB + CONTEXT_GB


#: Voxel size (mm) and crop (voxels) for a number of voxels of a crop.
Grid = Callable[[int], tuple[Spacing, Shape]]


def volume_grid(
    median_spacing: Spacing, median_extent_mm: Spacing, given: Spacing | None = None
) -> Grid:
    """Plans the grid of volumes.

    Args:
        median_spacing: voxel size (z, y, x) of the data in mm.
        median_extent_mm: median size of the body crop in mm.
        given: voxel size (mm) in place of the one that is planned.
    """

    def grid(crop_voxels: int) -> tuple[Spacing, Shape]:
        spacing = given or plan_spacing(median_spacing, crop_voxels)
        shape = tuple(int(e // s) for e, s in zip(median_extent_mm, spacing, strict=True))
        return spacing, plan_patch(spacing, shape, crop_voxels)  # type: ignore[arg-type]

    return grid


def fit_to_memory(preset: Preset, grid: Grid, memory_gb: float) -> Fit:
    """Shrinks expander, positives, volumes, width and crop, in this order, until the plan fits.

    Args:
        preset: what to start from.
        grid: see `volume_grid`.
        memory_gb: device memory; a tenth is left free.
    """
    budget = USABLE * memory_gb
    given_way: list[str] = []
    while True:
        spacing, patch = grid(preset.crop_voxels)
        estimate = estimate_gb(preset, spacing, patch)
        if estimate <= budget:
            break
        smaller, word = _give_way(preset)
        if smaller is None:
            given_way.append(f"nothing is left to shrink: {estimate:.1f} GB are needed")
            return Fit(preset, spacing, patch, estimate, tuple(given_way))
        preset = smaller
        given_way.append(word)
    preset = _grow_batch(preset, spacing, patch, budget)
    estimate = estimate_gb(preset, spacing, patch)
    return Fit(preset, spacing, patch, estimate, tuple(given_way))


def _give_way(preset: Preset) -> tuple[Preset | None, str]:
    if preset.head_width > 512:
        width = 2048 if preset.head_width > 2048 else 512
        return replace(preset, head_width=width), f"head {preset.head_width} -> {width}"
    if preset.positives > 512:
        return replace(preset, positives=512), f"positives {preset.positives} -> 512"
    if preset.volumes > 2:
        volumes = max(2, preset.volumes // 2)
        smaller = replace(preset, volumes=volumes)
        return smaller, f"volumes a step {preset.volumes} -> {volumes}"
    if preset.base_width > _MIN_WIDTH:
        width = max(_MIN_WIDTH, preset.base_width - 8)
        return replace(preset, base_width=width), f"network width {preset.base_width} -> {width}"
    if preset.crop_voxels > _MIN_CROP_VOXELS:
        voxels = max(_MIN_CROP_VOXELS, preset.crop_voxels // 2)
        return replace(preset, crop_voxels=voxels), f"crop {preset.crop_voxels} -> {voxels} voxels"
    return None, ""


def _grow_batch(preset: Preset, spacing: Spacing, patch: Shape, budget: float) -> Preset:
    """Spends what is left on volumes, up to the paper's number of voxels a step."""
    if preset.crop_voxels < PAPER_CROP_VOXELS:
        return preset  # planned for time, not for memory
    most = min(_MAX_VOLUMES, int(PAPER_VOLUMES * PAPER_CROP_VOXELS / np.prod(patch)))
    while preset.volumes < most:
        # Even where there are some, for pairs of devices.
        step = 2 if preset.volumes >= PAPER_VOLUMES // 2 else 1
        larger = replace(preset, volumes=preset.volumes + step)
        if larger.volumes > most or estimate_gb(larger, spacing, patch) > budget:
            break
        preset = larger
    return preset
