"""CFLOW: a conditional flow of the vectors of each scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from screener_nnu.baselines.slice_flows import SliceFlowMethod, SliceFlowSettings
from screener_nnu.densities.flow import FlowDensity
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import Count, CountOrNone


@dataclass(frozen=True)
class CflowSettings(SliceFlowSettings):
    """See `SliceFlowSettings`.

    Attributes:
        blocks: couplings of each scale.
        hidden: width of their networks.
        positions: drawn of each scale in a step; 0 for all.
    """

    blocks: Count = 8
    hidden: Count = 128
    positions: CountOrNone = 4096


class CflowMethod(SliceFlowMethod):
    """A flow for each scale, place by place, given a code of the place.

    References:
        Gudovskiy et al., CFLOW-AD: Real-time unsupervised anomaly detection with localization via
        conditional normalizing flows, WACV 2022 (https://arxiv.org/abs/2107.12571).
    """

    Settings: ClassVar[type] = CflowSettings

    def __init__(
        self,
        plan: Plan,
        size: Shape,
        blocks: int,
        hidden: int,
        positions: int,
        **settings: Any,
    ) -> None:
        """Builds the flows behind the network."""
        super().__init__(plan, size, **settings)
        self.positions = positions
        self.flows = nn.ModuleList(
            FlowDensity(width, self.code_channels, blocks, hidden) for width in self.widths
        )

    @staticmethod
    def flow_numbers(widths: Sequence[int], options: Mapping[str, Any]) -> int:
        """Each coupling reads the code, and has a matrix of hidden x hidden."""
        hidden: int = options["hidden"]
        return len(widths) * options["blocks"] * hidden * (hidden + options["code"])

    @torch.no_grad()
    def start_from(self, images: Tensor) -> None:
        """Features first, then the flows' own first values."""
        super().start_from(images)
        maps = self.maps(images[:1])
        for flow, one, code in zip(self.flows, maps, self.codes(maps), strict=True):
            flow.initialise(one[:, :, None], code[:, :, None].contiguous())  # type: ignore[operator]

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Negative log-likelihood of drawn places, in nats a number, mean over the scales."""
        maps = self.maps(images)
        losses = []
        for flow, one, code in zip(self.flows, maps, self.codes(maps), strict=True):
            rows, given = (values.movedim(1, -1).flatten(0, -2) for values in (one, code))
            if self.positions:
                shape = (min(self.positions, len(rows)),)
                drawn = torch.randint(len(rows), shape, generator=generator, device=rows.device)
                rows, given = rows[drawn], given[drawn]
            y, c = (values.T[None, :, :, None, None] for values in (rows, given))
            losses.append(-flow(y, c).mean() / one.shape[1])
        return {"NLL": torch.stack(losses).mean()}

    def energies(self, maps: list[Tensor]) -> list[Tensor]:
        """Negative log-likelihood of each place, in nats a channel."""
        return [
            -flow(one[:, :, None], code[:, :, None])[:, 0] / one.shape[1]
            for flow, one, code in zip(self.flows, maps, self.codes(maps), strict=True)
        ]
