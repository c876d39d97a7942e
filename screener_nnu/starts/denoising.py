"""Denoising auto-encoders with skips: coarse noise is to be taken away."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from screener_nnu.crop_methods import body_mean
from screener_nnu.plans import Plan, Shape
from screener_nnu.sampling.noise import coarse_noise
from screener_nnu.setting_values import Count, NotNegative
from screener_nnu.starts.base import StartMethod, value_range


@dataclass(frozen=True)
class DenoisingSettings:
    """Of a denoising auto-encoder.

    Attributes:
        noise: standard deviation at the cells of the noise, where the range of values is 1.
        cells: of the noise along an axis; a shorter axis has one a voxel.
    """

    noise: NotNegative = 0.2
    cells: Count = 16


class Denoising(StartMethod):
    """Absolute difference in the body to the image without noise.

    References:
        Kascenas, Pugeault and O'Neil, Denoising autoencoders for unsupervised anomaly detection in
        brain MRI, MIDL 2022, whose network and noise this is.
    """

    Settings = DenoisingSettings
    paper = "Denoising autoencoders for unsupervised anomaly detection in brain MRI"
    range: Tensor

    def __init__(self, plan: Plan, size: Shape, noise: float, cells: int) -> None:
        """Builds the network."""
        super().__init__(plan, size, plan.channels)
        self.noise, self.cells = noise, cells
        self.register_buffer("range", value_range(plan), persistent=False)

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Absolute difference to the clean image."""
        noise = coarse_noise(images.shape, self.cells, generator)
        restored = self.network(images + self.noise * self.range * noise * bodies)
        return {"l1": body_mean((restored.float() - images.float()).abs(), bodies)}
