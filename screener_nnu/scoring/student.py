"""The student: one UNet that gives the teacher's score."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from screener_nnu.networks.unet import low_precision
from screener_nnu.plans import Shape


class Student(nn.Module):
    """Anomaly score in nats from nnU-Net's normalised HU image.

    Args:
        network: UNet with one linear output, trained on standardised scores.
        score_mean, score_std: of the teacher's scores in training, in nats.
        low_precision_cpu: see `low_precision`.
    """

    reads: Literal["normalised"] = "normalised"
    cell: Shape = (1, 1, 1)
    by_position = False

    def __init__(
        self,
        network: nn.Module,
        score_mean: float,
        score_std: float,
        low_precision_cpu: bool = False,
    ) -> None:
        """Keeps the network and the scale of its output."""
        super().__init__()
        self.network = network
        self.score_mean = score_mean
        self.score_std = score_std
        self.low_precision_cpu = low_precision_cpu
        self.eval()

    @torch.no_grad()
    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Scores (B, D, H, W) of images (B, 1, D, H, W); the place in the volume is not used."""
        with low_precision(image.device, self.low_precision_cpu):
            standardised = self.network(image)[:, 0]
        return standardised.float() * self.score_std + self.score_mean
