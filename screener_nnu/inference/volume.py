"""Scores of one prepared scan: what the networks see, and the map on the plan's grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from screener_nnu.inference.sliding_window import cells_to_voxels, score_volume
from screener_nnu.networks.unet import shape_divisor
from screener_nnu.plans import ScreenerSettings, Shape
from screener_nnu.scoring.student import Student
from screener_nnu.scoring.teacher import Teacher


def normalise_hu(hu: torch.Tensor, plan: dict[str, Any]) -> torch.Tensor:
    """nnU-Net's `CTNormalization` with the plan's four values."""
    p = plan["foreground_intensity_properties_per_channel"]["0"]
    clipped = hu.float().clamp(p["percentile_00_5"], p["percentile_99_5"])
    return (clipped - p["mean"]) / max(p["std"], 1e-8)


def teacher_input(equalised: torch.Tensor, grid_shape: Shape) -> torch.Tensor:
    """The equalised image (stored grid) on the plan's grid."""
    if tuple(equalised.shape) == tuple(grid_shape):
        return equalised.float()
    return F.interpolate(equalised[None, None].float(), grid_shape, mode="trilinear")[0, 0]


class _Maps:
    """Gives pooled maps as `score_volume` wants them."""

    def __init__(self, cell: Shape, maps: Callable[..., torch.Tensor]) -> None:
        self.cell = cell
        self.maps = maps

    def __call__(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        return self.maps(image, start, extent)


def stitched_maps(
    maps: Callable[..., torch.Tensor],
    cell: Shape,
    image: torch.Tensor,
    plan: dict[str, Any],
) -> torch.Tensor:
    """Pooled maps of a whole image, averaged where tiles overlap.

    Args:
        maps: (image, start, extent) -> (B, channels, d, h, w), see `FeatureExtractor`.
        cell: voxels per axis of a position.
        image: (D, H, W), equalised, on the plan's grid.
        plan: with the tile and its overlap.

    Returns:
        (1, channels, d, h, w) float32 on the device of the image.
    """
    inference = ScreenerSettings.from_dict(plan["screener"]).inference
    tile, overlap = inference.teacher_tile, inference.overlap
    return score_volume(_Maps(cell, maps), image, tile, overlap, shape_divisor(plan), 0.0)[None]


def teacher_cells(teacher: Teacher, equalised: torch.Tensor, plan: dict[str, Any]) -> torch.Tensor:
    """Scores (d, h, w) in nats on the teacher's cell grid of an image on the plan's grid.

    The maps of overlapping tiles are averaged and the density is evaluated once a position.
    """
    features = teacher.features
    y = stitched_maps(features.descriptor_maps, teacher.cell, equalised, plan)
    c = None
    if features.condition.channels:
        c = stitched_maps(features.condition_maps, teacher.cell, equalised, plan)
    return teacher.score(y, c)[0]


def score_map(
    scorer: Teacher | Student,
    hu: np.ndarray,
    equalised: np.ndarray,
    plan: dict[str, Any],
    device: torch.device,
) -> np.ndarray:
    """The anomaly map (D, H, W) in nats, float32, on the plan's grid."""
    if isinstance(scorer, Teacher):
        image = teacher_input(torch.from_numpy(equalised).to(device), hu.shape)  # type: ignore[arg-type]
        cells = teacher_cells(scorer, image, plan)
        return cells_to_voxels(cells, scorer.cell, (0, 0, 0), hu.shape).cpu().numpy()  # type: ignore[arg-type]
    image = normalise_hu(torch.from_numpy(hu).to(device), plan)
    inference = ScreenerSettings.from_dict(plan["screener"]).inference
    air = float(normalise_hu(torch.tensor(-1024.0), plan))
    scores = score_volume(
        scorer, image, inference.student_tile, inference.overlap, shape_divisor(plan), air
    )
    return scores.cpu().numpy()
