"""Conditions without learning: none, and sine-cosine of the position in the volume."""

from __future__ import annotations

import torch

from screener_nnu.conditions.base import Condition
from screener_nnu.conditions.encoding import ENCODED_CHANNELS, sine_cosine


class NoCondition(Condition):
    """q(y): every voxel is compared with all others."""

    channels = 0

    def forward(self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor) -> None:
        """Nothing."""
        return None


class SinCosCondition(Condition):
    """Sine and cosine of the voxel's position in the volume.

    3 axes x 4 frequencies 2^-1 .. 2^2 x (sin, cos) = 24 channels; coordinates are scaled to [0, 1]
    over the volume (authors' settings).
    """

    channels = ENCODED_CHANNELS

    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """(B, 24, D, H, W); see `Condition.forward`."""
        batch, _, *shape = image.shape
        maps = []
        for axis, size in enumerate(shape):
            index = torch.arange(size, device=image.device, dtype=torch.float32)
            unit = (start[:, axis, None] + index + 0.5) / extent[:, axis, None]
            view = [batch, 1, 1, 1]
            view[axis + 1] = size
            maps += [wave.expand(batch, *shape) for wave in sine_cosine(unit.view(view))]
        return torch.stack(maps, dim=1)
