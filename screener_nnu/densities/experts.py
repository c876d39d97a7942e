"""Two experts: a flow of learned features and one of filters, whose standardised scores add up."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.densities.flow import FlowDensity
from screener_nnu.descriptors.with_filters import filter_channels
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import DensitySettings


class ExpertsDensity(ConditionalDensity):
    """A flow of the learned channels and one of the filters behind them.

    In one flow, the expert that is surer of what is usual drowns the other one. Here each learns by
    itself, from its own likelihood, and a score is the sum of both negative log-likelihoods, each
    less its mean and divided by its deviation over the bodies of training scans (`settle`).

    Args:
        dim: channels of both, those of the filters last.
        cond_dim: channels of the condition, which both see.
        filters: how many channels are those of the filters.
        flow: settings of each flow, see `FlowDensity`.

    Raises:
        ScreenerError: one of them has less than two channels.
    """

    unit: ClassVar[str] = "none"
    settles: ClassVar[bool] = True
    means: Tensor
    deviations: Tensor

    def __init__(self, dim: int, cond_dim: int = 0, filters: int = 2, **flow: Any) -> None:
        """Builds both."""
        super().__init__(dim, cond_dim)
        if not 2 <= filters <= dim - 2:
            raise ScreenerError(
                f"density.kind=experts has {dim} channels, of which {filters} should be filters, "
                "and needs two of each kind: take density.descriptor=dense_with_filters"
            )
        self.sizes = dim - filters, filters
        self.learned = FlowDensity(self.sizes[0], cond_dim, **flow)
        self.made = FlowDensity(self.sizes[1], cond_dim, **flow)
        self.register_buffer("means", torch.zeros(2))
        self.register_buffer("deviations", torch.ones(2))

    @classmethod
    def options(cls, settings: DensitySettings) -> dict[str, Any]:
        """Those of the flows, and where the filters begin."""
        own = FlowDensity.options(settings)
        return {**own, "filters": filter_channels(settings.descriptor_options)}

    def each(self, y: Tensor, c: Tensor | None) -> list[Tensor]:
        """Log-densities (B, D, H, W) in nats of both experts."""
        learned, made = y.split(self.sizes, dim=1)
        return [self.learned.log_prob(learned, c), self.made.log_prob(made, c)]

    @torch.no_grad()
    def settle(self, y: Tensor, c: Tensor | None) -> None:
        """Measures mean and deviation of both over maps of training scans."""
        for index, values in enumerate(self.each(*self._checked(y, c))):
            self.means[index] = values.mean()
            self.deviations[index] = values.std().clamp(min=1e-6)

    def _log_prob(self, y: Tensor, c: Tensor | None) -> Tensor:
        """In training the sum in nats, whose experts learn apart; else of standardised ones."""
        found = self.each(y, c)
        if self.training:
            return found[0] + found[1]
        parts = zip(found, self.means, self.deviations, strict=True)
        learned, made = ((values - mean) / deviation for values, mean, deviation in parts)
        return learned + made

    def _initialise(self, y: Tensor, c: Tensor | None) -> None:
        learned, made = y.split(self.sizes, dim=1)
        self.learned.initialise(learned, c)
        self.made.initialise(made, c)
