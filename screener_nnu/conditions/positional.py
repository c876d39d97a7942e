"""Conditions without learning: none, the position in the body, and sine-cosine of it."""

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
        waves = [w for unit in unit_coordinates(image, start, extent) for w in sine_cosine(unit)]
        return torch.stack([wave.expand(batch, *shape) for wave in waves], dim=1)


class PositionCondition(Condition):
    """Where in the body a voxel lies, in [0, 1] from its lowest to its highest voxel on each axis.

    Prepared scans are cropped to the body, so that the volume is its bounding box. A density that
    is fitted puts the positions into bins, as PaDiM does with the pixels of framed pictures.

    References:
        Defard et al., PaDiM: a patch distribution modeling framework for anomaly detection and
        localization, 2021 (https://arxiv.org/abs/2011.08785).
    """

    channels = 3

    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """(B, 3, D, H, W), coordinates z, y, x; see `Condition.forward`."""
        batch, _, *shape = image.shape
        units = unit_coordinates(image, start, extent)
        return torch.stack([unit.expand(batch, *shape) for unit in units], dim=1)


def unit_coordinates(
    image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
) -> list[torch.Tensor]:
    """Centres of voxels in units of the volume's edges, of each axis (B, ...), ready to expand."""
    batch, _, *shape = image.shape
    units = []
    for axis, size in enumerate(shape):
        index = torch.arange(size, device=image.device, dtype=torch.float32)
        view = [batch, 1, 1, 1]
        view[axis + 1] = size
        units.append(((start[:, axis, None] + index + 0.5) / extent[:, axis, None]).view(view))
    return units
