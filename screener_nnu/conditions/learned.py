"""The masking-invariant condition (paper, section on conditioning)."""

from __future__ import annotations

import torch
from torch import nn

from screener_nnu.conditions.base import Condition


class MaskingInvariantCondition(Condition):
    """What can be said of a voxel whichever part of the crop is hidden.

    Args:
        network: UNet that takes image * mask and, as a last channel, mask, trained to give the same
            output under different masks. Nothing is hidden when the density uses it.
        channels: output channels of the network.
    """

    trained = True

    def __init__(self, network: nn.Module, channels: int) -> None:
        """Takes the trained network."""
        super().__init__()
        self.network = network
        self.channels = channels

    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """(B, channels, D, H, W); the place in the volume is not used."""
        return self.network(unmasked_input(image))


def masked_input(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Input (B, C + 1, D, H, W) of the network: image (B, C, ...) * mask (B, 1, ...), mask."""
    return torch.cat([image * mask, mask], dim=1)


def unmasked_input(image: torch.Tensor) -> torch.Tensor:
    """The same with nothing hidden."""
    return masked_input(image, torch.ones_like(image[:, :1]))
