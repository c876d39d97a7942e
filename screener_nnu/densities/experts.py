"""Two experts: a flow of learned features and one of filters, scores weighted and added."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.densities.flow import FlowDensity
from screener_nnu.descriptors import WITH_FILTERS, descriptor_of
from screener_nnu.descriptors.with_filters import filter_channels
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import DensitySettings


class ExpertsDensity(ConditionalDensity):
    """A flow of the learned channels and one of the filters behind them.

    In one flow, the expert that is surer of what is usual drowns the other one. Here each learns by
    itself, from its own likelihood. A score is that of the learned channels plus `weight` times
    that of the filters. The weight makes both vary alike over the bodies of training scans
    (`settle`). So a score is -log of a product of experts (Hinton, Training Products of Experts by
    Minimizing Contrastive Divergence, 2002), the second raised to a power. The product is not
    normalised: a term is missing that depends on the condition alone.

    Args:
        dim: channels of both, those of the filters last.
        cond_dim: channels of the condition, which both see.
        filters: how many channels are those of the filters.
        flow: settings of each flow, see `FlowDensity`.

    Raises:
        ScreenerError: one of them has less than two channels.
    """

    settles = True
    builds_on_meta = False
    weight: Tensor

    def __init__(self, dim: int, cond_dim: int = 0, filters: int = 2, **flow: Any) -> None:
        """Builds both."""
        super().__init__(dim, cond_dim)
        if not 2 <= filters <= dim - 2:
            raise ScreenerError(
                f"density.kind=experts needs two channels of each kind, and has {dim - filters} "
                f"that were learned and {filters} of filters: plan more of either, or take "
                "density.kind=flow"
            )
        self.sizes = dim - filters, filters
        self.learned = FlowDensity(self.sizes[0], cond_dim, **flow)
        self.made = FlowDensity(self.sizes[1], cond_dim, **flow)
        self.register_buffer("weight", torch.tensor(1.0))

    @classmethod
    def options(cls, settings: DensitySettings) -> dict[str, Any]:
        """Those of the flows, and how many channels are filters.

        Raises:
            ScreenerError: the plan's descriptor has none, or a setting is wrong.
        """
        if descriptor_of(settings) != WITH_FILTERS:
            raise ScreenerError(
                f"density.kind=experts has its filters beside the plan's own descriptor, and "
                f"density.descriptor is '{settings.descriptor}': add -o density.kind=flow"
            )
        own = FlowDensity.options(settings)
        return {**own, "filters": filter_channels(settings.descriptor_options)}

    def each(self, y: Tensor, c: Tensor | None) -> list[Tensor]:
        """Log-densities (B, D, H, W) in nats of both experts."""
        learned, made = y.split(self.sizes, dim=1)
        return [self.learned.log_prob(learned, c), self.made.log_prob(made, c)]

    @classmethod
    def least_numbers(cls, settings: DensitySettings) -> int:
        """Those of two flows."""
        return 2 * FlowDensity.least_numbers(settings)

    @torch.no_grad()
    def settle(self, y: Tensor, c: Tensor | None) -> None:
        """Measures over maps of training scans how far each expert's scores spread."""
        learned, made = (values.std().clamp(min=1e-6) for values in self.each(*self._checked(y, c)))
        self.weight.copy_(learned / made)

    def _log_prob(self, y: Tensor, c: Tensor | None) -> Tensor:
        """In training the plain sum, of which each expert learns its own part."""
        learned, made = self.each(y, c)
        return learned + (made if self.training else self.weight * made)

    def _initialise(self, y: Tensor, c: Tensor | None) -> None:
        learned, made = y.split(self.sizes, dim=1)
        self.learned.initialise(learned, c)
        self.made.initialise(made, c)
