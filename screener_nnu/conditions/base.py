"""The interface of conditions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn


class Condition(nn.Module, ABC):
    """Maps an image and its place in the volume to a condition map c.

    Attributes:
        channels: d_cond; 0 stands for an unconditional density.
        trained: whether the condition comes from a stage that has to be trained.
    """

    channels: int
    trained: bool = False

    @abstractmethod
    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor | None:
        """The condition map.

        Args:
            image: (B, C, D, H, W), equalised, in [0, 1].
            start: (B, 3) index (z, y, x) in the volume of the image's first voxel.
            extent: (B, 3) size of the volume in voxels.

        Returns:
            (B, d_cond, D, H, W), or None for no condition.
        """
