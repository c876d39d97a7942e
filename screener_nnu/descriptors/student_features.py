"""What a student that reads its condition sees: all stages of the teacher's descriptor, and y."""

from __future__ import annotations

import torch
from torch import nn

from screener_nnu.descriptors.base import CellDescriptor, Descriptor
from screener_nnu.descriptors.levels import LevelsDescriptor
from screener_nnu.descriptors.with_filters import DescriptorWithFilters, FiltersOfEqualised
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.levels import OUTPUT, stages_of
from screener_nnu.plans import Shape


class StudentFeatures(CellDescriptor):
    """The maps of all stages of a UNet, then the channels of the descriptor, in one pass.

    Args:
        network: UNet of the descriptor; it is frozen, not copied.
        filters: that stand behind its channels, if the descriptor has some.
    """

    def __init__(self, network: nn.Module, filters: FiltersOfEqualised | None = None) -> None:
        """Joins both."""
        stages = stages_of(network)
        levels = LevelsDescriptor(network, (*stages, OUTPUT))
        more = filters.channels if filters else 0
        super().__init__(levels.channels + more, "student features")
        self.levels, self.filters = levels, filters
        self.divisor = levels.divisor
        #: Channels of each stage, which stand before those of the descriptor.
        self.stages = {name: stage.channels for name, stage in stages.items()}

    @classmethod
    def of_descriptor(cls, descriptor: nn.Module) -> StudentFeatures:
        """Those of a teacher's descriptor.

        Raises:
            ScreenerError: it is no UNet of the plan, with filters or without.
        """
        if isinstance(descriptor, DescriptorWithFilters):
            return cls(descriptor.network, descriptor.filters)
        if isinstance(descriptor, Descriptor):
            raise ScreenerError(
                f"a student reads the condition off the stages of the plan's UNet, and its teacher "
                f"has a {type(descriptor).__name__}: set distillation.learns=score"
            )
        return cls(descriptor)

    @property
    def unet(self) -> nn.Module:
        """The UNet."""
        return self.levels.network

    @property
    def described(self) -> int:
        """Channels of the descriptor."""
        return self.channels - sum(self.stages.values())

    @torch.no_grad()
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """See `Descriptor.pooled`."""
        maps = self.levels.pooled(image, pooling)
        if self.filters is None:
            return maps
        return torch.cat([maps, self.filters.pooled(image, pooling)], dim=1)

    def parted(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps of the stages (B, n, ...), and y (B, `described`, ...)."""
        stages, y = maps.split([self.channels - self.described, self.described], dim=1)
        return stages, y
