"""CFLOW: a conditional flow of the vectors of each scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from screener_nnu.baselines.slice_flows import (
    SliceFlowMethod,
    SliceFlowSettings,
    body_positions,
)
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
    def start_from(self, images: Tensor, bodies: Tensor) -> None:
        """Features first, then the flows' own first values."""
        super().start_from(images, bodies)
        maps = self.maps(images[:1])
        inside = body_positions(bodies[:1], maps)
        for flow, *pair, own in zip(self.flows, maps, self.codes(maps), inside, strict=True):
            flow.initialise(*(_columns(one.movedim(1, -1)[own]) for one in pair))  # type: ignore[operator]

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Negative log-likelihood of drawn places in the body, in nats a number.

        It is the mean over the scales.
        """
        maps = self.maps(images)
        losses = []
        inside = body_positions(bodies, maps)
        for flow, *pair, own in zip(self.flows, maps, self.codes(maps), inside, strict=True):
            rows, given = (values.movedim(1, -1).flatten(0, -2) for values in pair)
            weights = own.flatten().float()
            if self.positions:
                drawn = draw_marked(own.flatten(), min(self.positions, len(rows)), generator)
                rows, given, weights = rows[drawn], given[drawn], weights[drawn]
            found = flow(_columns(rows), _columns(given)).flatten()
            losses.append(-(found * weights).sum() / weights.sum() / rows.shape[1])
        return {"NLL": torch.stack(losses).mean()}

    def energies(self, maps: list[Tensor]) -> list[Tensor]:
        """Negative log-likelihood of each place, in nats a channel."""
        return [
            -flow(one[:, :, None], code[:, :, None])[:, 0] / one.shape[1]
            for flow, one, code in zip(self.flows, maps, self.codes(maps), strict=True)
        ]


def draw_marked(marked: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Places (count,) of a mask (N,), each one alike likely; the device is not waited for.

    Args:
        marked: at least one is True.
        count: how many are drawn; the same one may come again.
        generator: on the device of the mask.
    """
    before = marked.cumsum(0)
    drawn = torch.rand(count, generator=generator, device=marked.device, dtype=torch.float64)
    return torch.searchsorted(before, (drawn * before[-1]).long(), right=True)


def _columns(rows: Tensor) -> Tensor:
    """Vectors (n, C) as a map (1, C, n, 1, 1)."""
    return rows.T[None, :, :, None, None]
