"""A UNet that takes coarse noise out of images; what it takes out of a clean one is unusual."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from screener_nnu.baselines.reconstruction import ReconstructionMethod
from screener_nnu.crop_methods import body_mean
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import Plan, Shape
from screener_nnu.sampling.noise import coarse_noise
from screener_nnu.setting_values import Count, Positive


@dataclass(frozen=True)
class DenoisingSettings:
    """Of the noise.

    Attributes:
        sigma: standard deviation at a node, where the window of an image has a length of 1.
        nodes: of the noise along each axis of an image.
    """

    sigma: Positive = 0.2
    nodes: Count = 16


class DenoisingMethod(ReconstructionMethod):
    """The plan's UNet, with its skips, from noisy images to clean ones.

    Noise lies in the body alone, and so does the loss, the absolute difference. A clean image is
    given at test.

    References:
        Kascenas, Pugeault and O'Neil, Denoising autoencoders for unsupervised anomaly detection in
        brain MRI, MIDL 2022.
    """

    Settings = DenoisingSettings

    def __init__(self, plan: Plan, size: Shape, sigma: float, nodes: int) -> None:
        """Builds the network."""
        super().__init__(plan, size)
        self.network = build_unet(plan, plan.channels, plan.channels)
        # Images are 2 long, from -1 to 1.
        self.sigma, self.nodes = 2 * sigma, nodes

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Difference of clean images and what is made of noisy ones."""
        noise = self.sigma * coarse_noise(images.shape, self.nodes, generator)
        clean = self.reconstruct(images + noise * bodies)
        return {"l1": body_mean((clean.float() - images).abs(), bodies)}

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the network takes for clean."""
        clean: Tensor = self.network(images)
        return clean
