"""Pairs of overlapping crops of random physical size, and the voxels they share.

A box is given in voxels of the stored image: whole numbers `start` and `size` (z, y, x). Resizing a
box to the crop follows the half-pixel convention of `torch.nn.functional.interpolate`: crop voxel i
lies at `start + (i + 0.5) * size / crop - 0.5`.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from screener_nnu.plans import Range, Shape, Spacing

_MAX_DRAWS = 50


@dataclass(frozen=True)
class Box:
    """Box of whole voxels; it may leave the volume, where there is air."""

    start: Shape
    size: Shape

    @property
    def stop(self) -> Shape:
        """First voxel behind the box, per axis."""
        return tuple(a + n for a, n in zip(self.start, self.size, strict=True))  # type: ignore[return-value]


def intersect(first: Box, second: Box) -> Box:
    """The voxels that two boxes share; its size is 0 or less where there are none."""
    start = np.maximum(first.start, second.start)
    size = np.minimum(first.stop, second.stop) - start
    return Box(tuple(int(v) for v in start), tuple(int(v) for v in size))  # type: ignore[arg-type]


def draw_pair(
    generator: np.random.Generator,
    shape: Shape,
    voxels_per_crop: tuple[float, float, float],
    scale_range: Range,
    min_overlap: float = 0.0,
) -> tuple[Box, Box]:
    """Two boxes of random size that share a voxel drawn uniformly from the volume.

    Args:
        generator: of this sample.
        shape: of the stored image.
        voxels_per_crop: stored voxels that a crop of the plan's spacing covers, per axis.
        scale_range: factor on that size, drawn per box and axis.
        min_overlap: overlap per axis, as a fraction of the smaller box, to be reached if possible.
    """
    pair = _draw_once(generator, shape, voxels_per_crop, scale_range)
    for _ in range(_MAX_DRAWS):
        overlap = np.array(intersect(*pair).size)
        if (overlap >= min_overlap * np.minimum(pair[0].size, pair[1].size)).all():
            break
        pair = _draw_once(generator, shape, voxels_per_crop, scale_range)
    return pair


def _draw_once(
    generator: np.random.Generator,
    shape: Shape,
    voxels_per_crop: tuple[float, float, float],
    scale_range: Range,
) -> tuple[Box, Box]:
    shared = generator.integers(0, shape)
    return (
        _draw_box(generator, shared, shape, voxels_per_crop, scale_range),
        _draw_box(generator, shared, shape, voxels_per_crop, scale_range),
    )


def _draw_box(
    generator: np.random.Generator,
    shared: np.ndarray,
    shape: Shape,
    voxels_per_crop: tuple[float, float, float],
    scale_range: Range,
) -> Box:
    """A box around `shared`, cut to the volume but not below the smallest scale."""
    wanted = np.array(voxels_per_crop) * generator.uniform(*scale_range, size=3)
    smallest = np.array(voxels_per_crop) * scale_range[0]
    # A picture has one slice.
    least = np.minimum(2, shape)
    size = np.maximum(np.rint(np.maximum(np.minimum(wanted, shape), smallest)), least).astype(int)
    low = np.maximum(np.minimum(0, np.array(shape) - size), shared - size + 1)
    high = np.minimum(shared, np.maximum(0, np.array(shape) - size))
    start = generator.integers(low, high + 1)
    return Box(tuple(int(v) for v in start), tuple(int(v) for v in size))  # type: ignore[arg-type]


def voxels_per_crop(
    crop_size: Shape, spacing: Spacing, storage_spacing: Spacing
) -> tuple[float, float, float]:
    """Stored voxels (not rounded) that a crop of the plan's spacing covers, per axis."""
    scaled = (n * s / t for n, s, t in zip(crop_size, spacing, storage_spacing, strict=True))
    return tuple(scaled)  # type: ignore[return-value]


def as_batch(image: torch.Tensor) -> torch.Tensor:
    """One image (D, H, W), or (C, D, H, W) in colour, as a batch (1, C, D, H, W), float32."""
    return (image[None, None] if image.ndim == 3 else image[None]).float()


def resize_boxes(boxes: list[torch.Tensor], crop_size: Shape) -> torch.Tensor:
    """Resizes images (D, H, W) or (C, D, H, W) to one batch (B, C, *crop_size), trilinearly."""
    resized = [F.interpolate(as_batch(box), crop_size, mode="trilinear") for box in boxes]
    return torch.cat(resized)


def to_crop(points: torch.Tensor, box: Box, crop_size: Shape) -> torch.Tensor:
    """Coordinates (n, 3) in stored voxels as coordinates in voxels of the resized crop."""
    start = points.new_tensor(box.start)
    factor = points.new_tensor(crop_size) / points.new_tensor(box.size)
    return (points - start + 0.5) * factor - 0.5


def draw_positives(
    body: torch.Tensor, first: Box, second: Box, count: int, generator: torch.Generator
) -> torch.Tensor:
    """Up to `count` body voxels of the overlap, without replacement.

    Args:
        body: (D, H, W) mask of the first box.
        first, second: the boxes.
        count: voxels at most.
        generator: on the device of `body`.

    Returns:
        (n, 3) coordinates in stored voxels, float32.
    """
    shared = intersect(first, second)
    if min(shared.size) <= 0:
        return body.new_zeros((0, 3), dtype=torch.float32)
    local = [a - b for a, b in zip(shared.start, first.start, strict=True)]
    window = tuple(slice(a, a + n) for a, n in zip(local, shared.size, strict=True))
    candidates = body[window].nonzero()
    order = torch.randperm(len(candidates), generator=generator, device=body.device)[:count]
    return candidates[order].float() + torch.tensor(
        shared.start, device=body.device, dtype=torch.float32
    )


def sample_features(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Trilinear values of one map (d, D, H, W) at crop coordinates (n, 3): (n, d), float32."""
    if torch.are_deterministic_algorithms_enabled():
        return _gathered(features.float(), points)
    shape = points.new_tensor(features.shape[1:])
    # grid_sample wants (x, y, z) in [-1, 1] with voxel edges at -1 and 1.
    grid = ((points + 0.5) / shape * 2 - 1).flip(-1)[None, :, None, None]
    values = F.grid_sample(
        features[None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[0, :, :, 0, 0].T


def _gathered(features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """The same from the eight voxels around each point.

    On GPUs the gradient of `grid_sample` is summed in any order, and that of an index need not be.
    """
    last = points.new_tensor(features.shape[1:]) - 1
    inside = points.clamp(min=torch.zeros_like(last), max=last)
    low = inside.floor().minimum((last - 1).clamp_min(0))
    share = inside - low
    values = features.new_zeros((len(points), len(features)))
    for corner in itertools.product((0, 1), repeat=3):
        step = points.new_tensor(corner)
        weight = torch.where(step > 0, share, 1 - share).prod(1, keepdim=True)
        z, y, x = (low + step).minimum(last).long().unbind(1)
        values = values + weight * features[:, z, y, x].T
    return values
