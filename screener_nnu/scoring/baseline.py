"""A detector of another group as a detector of ours."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.baselines.base import BaselineMethod
from screener_nnu.networks.unet import method_precision
from screener_nnu.plans import Plan, Range, Shape
from screener_nnu.preprocessing.modality import DEVIATIONS, MR
from screener_nnu.sampling.smoothing import gaussian_smooth


class BaselineDetector(nn.Module):
    """Scores of images of the size that a method was trained on, where tiles overlap their mean.

    Args:
        method: trained.
        plan: that it was trained with.
    """

    cell: Shape = (1, 1, 1)
    by_position = False

    def __init__(self, method: BaselineMethod, plan: Plan) -> None:
        """Keeps the method and what it sees."""
        super().__init__()
        self.method = method
        settings = plan.settings
        self.reads: Literal["hu", "equalised"] = settings.baseline.image  # type: ignore[assignment]
        self.tile: Shape = method.size
        self.window = window_of(plan)
        self.low_precision_cpu = settings.low_precision_cpu

    @torch.no_grad()
    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Scores (B, D, H, W) of images (B, C, D, H, W); the place in the scan is not used."""
        return self.score(image)

    @torch.no_grad()
    def score(self, image: torch.Tensor) -> torch.Tensor:
        """The same of images by themselves."""
        shape = image.shape[2:]
        missing = [max(0, n - m) for n, m in zip(self.tile, shape, strict=True)]
        filled = F.pad(
            scale(image, self.window), [v for m in missing[::-1] for v in (0, m)], value=-1
        )
        with method_precision(self.method.mixed_precision, image.device, self.low_precision_cpu):
            scores = self.method.score(filled).float()
        depth, height, width = shape
        smooth = gaussian_smooth(scores[:, None], self.method.smoothing)
        return smooth[:, 0, :depth, :height, :width]


def window_of(plan: Plan) -> Range:
    """Values that become -1 and 1 of what a plan's method sees."""
    settings = plan.settings
    if settings.baseline.image == "equalised":
        return 0.0, 1.0
    clip, window = settings.preprocessing.hu_clip, settings.preprocessing.hu_window
    if settings.preprocessing.modality == MR:
        return DEVIATIONS
    return max(clip[0], window[0]), min(clip[1], window[1])


def scale(image: torch.Tensor, window: Range) -> torch.Tensor:
    """Values of a window in [-1, 1], others at its ends."""
    low, high = window
    return ((image.float().clamp(low, high) - low) / (high - low)) * 2 - 1
