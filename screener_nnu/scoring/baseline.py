"""A detector of another group as a detector of ours."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.baselines.base import BaselineMethod
from screener_nnu.baselines.window import scale, window_of
from screener_nnu.descriptors.base import beyond
from screener_nnu.networks.unet import method_precision
from screener_nnu.plans import Plan, Shape
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
        self.beyond = beyond(self.reads, plan)
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
        sides = [v for m in missing[::-1] for v in (0, m)]
        filled = scale(F.pad(image.float(), sides, value=self.beyond), self.window)
        with method_precision(self.method.mixed_precision, image.device, self.low_precision_cpu):
            scores = self.method.score(filled).float()
        depth, height, width = shape
        own = scores[:, None, :depth, :height, :width]
        return gaussian_smooth(own, self.method.smoothing)[:, 0]
