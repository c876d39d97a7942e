"""Auto-encoders with a bottleneck in space: what cannot be reconstructed is unusual."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from screener_nnu.baselines.base import BaselineMethod
from screener_nnu.baselines.bottleneck import BottleneckNetwork
from screener_nnu.crop_methods import body_mean
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import Count, Fraction, OneOf


@dataclass(frozen=True)
class AutoEncoderSettings:
    """Of an auto-encoder.

    Attributes:
        latent: channels of the bottleneck.
        loss: `l1` or `l2`.
        outside: weight of voxels outside the body.
    """

    latent: Count = 16
    loss: Annotated[str, OneOf("l1", "l2")] = "l1"
    outside: Fraction = 0.1


class AutoEncoderMethod(BaselineMethod):
    """Reconstructs images through a narrow grid; the score is the absolute difference.

    References:
        Baur et al., Autoencoders for unsupervised anomaly segmentation in brain MR images: a
        comparative study, Medical Image Analysis 2021.
    """

    Settings = AutoEncoderSettings
    smoothing = 1.0

    def __init__(self, plan: Plan, size: Shape, latent: int, loss: str, outside: float) -> None:
        """Builds the network."""
        super().__init__(plan, size)
        self.network = BottleneckNetwork(plan, size, latent)
        self.loss, self.outside = loss, outside

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Difference of images and reconstructions."""
        difference = (self.network(images).float() - images).abs()
        if self.loss == "l2":
            difference = difference.square()
        return {self.loss: body_mean(difference, bodies, self.outside)}

    def score(self, images: Tensor) -> Tensor:
        """Absolute difference, mean over channels."""
        return (self.network(images).float() - images).abs().mean(1)
