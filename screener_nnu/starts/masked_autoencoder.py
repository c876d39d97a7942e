"""Masked auto-encoders: hidden blocks are predicted from what is around them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from screener_nnu.crop_methods import body_mean
from screener_nnu.plans import Plan, Shape
from screener_nnu.sampling.masks import visible_blocks
from screener_nnu.setting_values import Count, Fraction
from screener_nnu.starts.base import StartMethod


@dataclass(frozen=True)
class MaskedAutoEncoderSettings:
    """Of a masked auto-encoder.

    Attributes:
        hidden: share of the blocks that are hidden.
        blocks: per axis, where a block has `least_edge` voxels or more.
        least_edge: voxels of a block's edge, at least.
    """

    hidden: Fraction = 0.75
    blocks: Count = 8
    least_edge: Count = 4


class MaskedAutoEncoder(StartMethod):
    """Squared error of the hidden voxels of the body; visible ones count nothing.

    Hidden blocks are 0, which is the mean of a normalised image.

    References:
        He et al., Masked autoencoders are scalable vision learners, CVPR 2022, in the form of
        Wald et al., Revisiting MAE pre-training for 3D medical image segmentation, CVPR 2025.
    """

    Settings = MaskedAutoEncoderSettings
    paper = "Masked autoencoders are scalable vision learners"

    def __init__(
        self, plan: Plan, size: Shape, hidden: float, blocks: int, least_edge: int
    ) -> None:
        """Builds the network."""
        super().__init__(plan, size, plan.channels)
        self.hidden = hidden
        z, y, x = (max(1, min(blocks, n // least_edge)) for n in size)
        self.grid: Shape = z, y, x

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Squared error of what was hidden."""
        seen = visible_blocks(len(images), self.size, self.grid, self.hidden, generator)
        predicted = self.network(images * seen)
        return {"l2": hidden_error(predicted, images, bodies & (seen == 0))}


def hidden_error(predicted: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of hidden voxels, in float32; 0 without any.

    Args:
        predicted, images: (B, C, D, H, W).
        hidden: masks (B, 1, D, H, W).
    """
    return body_mean((predicted.float() - images.float()).square(), hidden)
