"""The anatomical position embedding (APE): where in a body a voxel lies, read off the image."""

from __future__ import annotations

import torch
from torch import nn

from screener_nnu.conditions.base import Condition
from screener_nnu.conditions.encoding import ENCODED_CHANNELS, sine_cosine
from screener_nnu.conditions.learned import unmasked_input

#: Channels of the position network.
POSITION_CHANNELS = 3
# Flattens the sigmoid: initial outputs, of order 1, then spread over about a crop, not over a body.
_SLOPE = 0.25


class ApeCondition(Condition):
    """Sine and cosine of a learned position, 24 channels.

    A row of the ablation of Goncharov et al. (https://arxiv.org/abs/2502.08321).

    Args:
        network: UNet that takes image * mask and mask and has three outputs, trained by
            the position stage so that distances of outputs are distances in the body.
    """

    trained = True
    channels = ENCODED_CHANNELS

    def __init__(self, network: nn.Module) -> None:
        """Takes the trained network."""
        super().__init__()
        self.network = network

    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """(B, 24, D, H, W); the place in the volume is not used."""
        unit = unit_position(self.network(unmasked_input(image)))
        return torch.stack([w for u in unit.unbind(1) for w in sine_cosine(u)], dim=1)


def unit_position(outputs: torch.Tensor) -> torch.Tensor:
    """Positions (B, 3, D, H, W) in [0, 1], float32, from the network's outputs."""
    return torch.sigmoid(_SLOPE * outputs.float())
