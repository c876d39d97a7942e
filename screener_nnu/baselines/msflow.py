"""MSFlow: flows of three scales side by side with a fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from screener_nnu.baselines.slice_flows import SliceFlowMethod, SliceFlowSettings
from screener_nnu.networks.map_flows import MultiScaleFlow
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import Count


@dataclass(frozen=True)
class MsFlowSettings(SliceFlowSettings):
    """See `SliceFlowSettings`.

    Attributes:
        blocks: couplings of each scale, from fine to coarse.
    """

    blocks: tuple[Count, Count, Count] = (2, 5, 8)


class MsFlowMethod(SliceFlowMethod):
    """Convolutional flows of the maps of three scales, which are fused at the end.

    References:
        Zhou et al., MSFlow: Multi-scale flow-based framework for unsupervised anomaly detection,
        IEEE TNNLS 2024 (https://arxiv.org/abs/2308.15300).
    """

    Settings: ClassVar[type] = MsFlowSettings

    def __init__(self, plan: Plan, size: Shape, blocks: tuple[int, ...], **settings: Any) -> None:
        """Builds the flows behind the network."""
        super().__init__(plan, size, **settings)
        self.flow = MultiScaleFlow(self.widths, blocks, self.code_channels)

    @staticmethod
    def flow_numbers(widths: Sequence[int], options: Mapping[str, Any]) -> int:
        """The first convolution of each coupling, of 3 x 3, reads the code."""
        couplings = sum(n * width for n, width in zip(options["blocks"], widths, strict=True))
        return 9 * int(options["code"]) * couplings

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Negative log-likelihood without its constant, in nats a number of the maps."""
        maps = self.maps(images)
        z, logabsdet = self.flow(maps, self.codes(maps))
        squares = sum(one.square().flatten(1).sum(1) for one in z)
        numbers = sum(one[0].numel() for one in z)
        return {"NLL": ((0.5 * squares - logabsdet) / numbers).mean()}

    def energies(self, maps: list[Tensor]) -> list[Tensor]:
        """Half of the mean square of z over the channels.

        The published score divides by the most normal place of each image; then an image without
        anything odd has as high a maximum as any. Here scores of slices can be compared.
        """
        z, _ = self.flow(maps, self.codes(maps))
        return [0.5 * one.square().mean(1) for one in z]
