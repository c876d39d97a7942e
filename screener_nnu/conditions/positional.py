"""Conditions without learning: none, and sine-cosine of the position in the volume."""

from __future__ import annotations

import torch

from screener_nnu.conditions.base import Condition


class NoCondition(Condition):
    """q(y): every voxel is compared with all others."""

    channels = 0

    def forward(self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor) -> None:
        """Nothing."""
        return None


class SinCosCondition(Condition):
    """Sine and cosine of the voxel's position in the volume.

    3 axes x 4 frequencies 2^-1 .. 2^2 x (sin, cos) = 24 channels; coordinates are scaled to [0, 1]
    over the volume (authors' settings), the argument is 2 pi f u.
    """

    channels = 24
    frequencies = (0.5, 1.0, 2.0, 4.0)

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
            for frequency in self.frequencies:
                angle = (2 * torch.pi * frequency * unit).view(view)
                maps += [angle.sin().expand(batch, *shape), angle.cos().expand(batch, *shape)]
        return torch.stack(maps, dim=1)
