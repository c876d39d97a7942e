"""What a student that reads its condition sees: its teacher's UNet, stage by stage, and y."""

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

    The condition is read off the filters of the descriptor, too: a widely smoothed value tells
    where it lies. Call `standardise_filters` first; until then they are read as they are.

    Args:
        network: UNet of the descriptor; it is frozen, not copied.
        filters: that stand behind its channels, if the descriptor has some.
    """

    means: torch.Tensor
    deviations: torch.Tensor

    def __init__(self, network: nn.Module, filters: FiltersOfEqualised | None = None) -> None:
        """Joins both."""
        stages = stages_of(network)
        levels = LevelsDescriptor(network, (*stages, OUTPUT))
        more = filters.channels if filters else 0
        super().__init__(levels.channels + more, "student features")
        self.levels, self.filters = levels, filters
        self.divisor = levels.divisor
        self._stages = sum(stage.channels for stage in stages.values())
        #: Channels of each map that the condition is read off.
        self.read = {name: stage.channels for name, stage in stages.items()}
        if filters:
            self.read["filters"] = filters.channels
        # Of the filters; kept with the module, so that a hash of it knows them.
        self.register_buffer("means", torch.zeros(more))
        self.register_buffer("deviations", torch.ones(more))

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

    def standardise_filters(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        """Takes the scale of the filters from that of the descriptor.

        Args:
            mean, std: of its channels (`described`,).
        """
        first = self.described - len(self.means)
        self.means.copy_(mean[first:])
        self.deviations.copy_(std[first:])

    @property
    def unet(self) -> nn.Module:
        """The UNet."""
        return self.levels.network

    @property
    def described(self) -> int:
        """Channels of the descriptor."""
        return self.channels - self._stages

    @torch.no_grad()
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """See `Descriptor.pooled`."""
        maps = self.levels.pooled(image, pooling)
        if self.filters is None:
            return maps
        return torch.cat([maps, self.filters.pooled(image, pooling)], dim=1)

    def parted(self, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the condition is read off (B, n, ...), and y (B, `described`, ...)."""
        stages, y = maps.split([self._stages, self.described], dim=1)
        if self.filters is None:
            return stages, y
        shape = -1, *(1 for _ in y.shape[2:])
        filters = y[:, -self.filters.channels :] - self.means.view(shape)
        return torch.cat([stages, filters / self.deviations.view(shape)], dim=1), y
