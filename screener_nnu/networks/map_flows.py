"""Flows on maps of several scales, one beside the other, and their fusion."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from nflows.transforms import (
    AffineCouplingTransform,
    CompositeTransform,
    RandomPermutation,
    Transform,
)
from torch import Tensor, nn

#: Log-scales of couplings stay within it.
CLAMP = 1.9


def clamped(values: Tensor, limit: float = CLAMP) -> Tensor:
    """Soft bounds: 2 / pi of the limit times the arc tangent."""
    return limit * (2 / math.pi) * torch.atan(values / limit)


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position of maps (n, C, h, w)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the same shape."""
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)


def _zero_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class _MapNet(nn.Module):
    """Two convolutions with a layer normalisation between; zero at the start."""

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        last = _zero_convolution(hidden, outputs)
        self.layers = nn.Sequential(
            nn.Conv2d(inputs, hidden, 3, padding=1), ChannelNorm(hidden), nn.ReLU(), last
        )

    def forward(self, maps: Tensor, context: Tensor | None = None) -> Tensor:
        values: Tensor = self.layers(maps if context is None else torch.cat([maps, context], 1))
        return values


class MapCoupling(AffineCouplingTransform):
    """Affine coupling of half of the channels, given the other half and a code of the place."""

    def __init__(self, channels: int, context: int) -> None:
        """Builds a coupling that changes nothing at first."""
        mask = torch.arange(channels) >= channels - channels // 2
        super().__init__(mask, lambda i, o: _MapNet(i + context, o, channels))

    def _coupling_transform_forward(
        self, inputs: Tensor, transform_params: Tensor
    ) -> tuple[Tensor, Tensor]:
        shift, raw = transform_params.chunk(2, dim=1)
        log_scale = clamped(raw)
        return inputs * log_scale.exp() + shift, log_scale.flatten(1).sum(1)

    def _coupling_transform_inverse(
        self, inputs: Tensor, transform_params: Tensor
    ) -> tuple[Tensor, Tensor]:
        shift, raw = transform_params.chunk(2, dim=1)
        log_scale = clamped(raw)
        return (inputs - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1)


class ScaleShift(Transform):
    """A positive scale and a shift of each channel of maps (n, C, h, w)."""

    # Softplus of it is 1.
    _ONE = math.log(math.e - 1)

    def __init__(self, channels: int) -> None:
        """Builds the identity."""
        super().__init__()
        self.raw = nn.Parameter(torch.full((channels,), self._ONE))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scaled and shifted maps, and log|det| (n,)."""
        scale = F.softplus(self.raw)[:, None, None]
        return inputs * scale + self.shift[:, None, None], self._logabsdet(inputs)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The maps that `forward` was given, and log|det| of the way back."""
        scale = F.softplus(self.raw)[:, None, None]
        return (inputs - self.shift[:, None, None]) / scale, -self._logabsdet(inputs)

    def _logabsdet(self, inputs: Tensor) -> Tensor:
        places = inputs.shape[2] * inputs.shape[3]
        return (F.softplus(self.raw).log().sum() * places).expand(len(inputs))


class Fusion(nn.Module):
    """Couples maps of all scales: one half of each, given the other halves of all.

    The halves that condition are pooled to the coarsest grid, mixed, and added back to themselves
    on their own grids; a convolution a scale gives log-scale and shift. Then the halves swap.

    Args:
        widths: channels of each scale, from fine to coarse.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        """Builds couplings that change nothing at first, and draws permutations."""
        super().__init__()
        self.permutations = nn.ModuleList(RandomPermutation(width) for width in widths)
        first = [width - width // 2 for width in widths]
        second = [width // 2 for width in widths]
        self.halves = first
        self.turns = nn.ModuleList([_FusionTurn(second, first), _FusionTurn(first, second)])

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Maps (n, C, h, w) of the same shapes, and log|det| (n,) of all together."""
        parts = [list(one.tensor_split([n], 1)) for one, n in self._permuted(maps)]
        total = maps[0].new_zeros(len(maps[0]))
        for turn, (given, changed) in zip(self.turns, ((1, 0), (0, 1)), strict=True):
            found = turn([part[given] for part in parts])
            for part, (log_scale, shift) in zip(parts, found, strict=True):
                part[changed] = part[changed] * log_scale.exp() + shift
                total = total + log_scale.flatten(1).sum(1)
        return [torch.cat(part, 1) for part in parts], total

    def inverse(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps that `forward` was given."""
        parts = [list(m.tensor_split([n], 1)) for m, n in zip(maps, self.halves, strict=True)]
        for turn, (given, changed) in zip(self.turns[::-1], ((0, 1), (1, 0)), strict=True):
            found = turn([part[given] for part in parts])
            for part, (log_scale, shift) in zip(parts, found, strict=True):
                part[changed] = (part[changed] - shift) * (-log_scale).exp()
        joined = (torch.cat(part, 1) for part in parts)
        pairs = zip(self.permutations, joined, strict=True)
        return [permutation.inverse(one)[0] for permutation, one in pairs]  # type: ignore[operator]

    def _permuted(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, int]]:
        triples = zip(self.permutations, maps, self.halves, strict=True)
        return [(permutation(one)[0], half) for permutation, one, half in triples]


class _FusionTurn(nn.Module):
    """Log-scales and shifts of one half of each scale, from the other halves of all."""

    def __init__(self, given: Sequence[int], changed: Sequence[int]) -> None:
        super().__init__()
        self.given = list(given)
        total = sum(given)
        narrow = max(1, total // 4)
        self.mix = nn.Sequential(
            nn.Conv2d(total, narrow, 3, padding=1),
            ChannelNorm(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, total, 3, padding=1),
            nn.ReLU(),
        )
        self.heads = nn.ModuleList(
            _zero_convolution(own, 2 * other) for own, other in zip(given, changed, strict=True)
        )

    def forward(self, halves: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        height, width = halves[-1].shape[2:]
        pooled = torch.cat([F.adaptive_avg_pool2d(h, (height, width)) for h in halves], 1)
        found = []
        mixed = self.mix(pooled).split(self.given, 1)
        for half, more, head in zip(halves, mixed, self.heads, strict=True):
            spread = F.interpolate(more, half.shape[2:], mode="bilinear")
            raw, shift = head(half + spread).chunk(2, 1)
            found.append((clamped(raw), shift))
        return found


class MultiScaleFlow(nn.Module):
    """Flows of maps of several scales side by side, fused at the end.

    References:
        Zhou et al., MSFlow: Multi-scale flow-based framework for unsupervised anomaly detection,
        IEEE TNNLS 2024 (https://arxiv.org/abs/2308.15300).

    Args:
        widths: channels of each scale, from fine to coarse.
        blocks: couplings of each scale.
        context: channels of the code of the place.
    """

    def __init__(self, widths: Sequence[int], blocks: Sequence[int], context: int) -> None:
        """Builds the flows."""
        super().__init__()
        self.flows = nn.ModuleList(
            CompositeTransform(
                [
                    layer
                    for _ in range(count)
                    for layer in (
                        RandomPermutation(width),
                        MapCoupling(width, context),
                        ScaleShift(width),
                    )
                ]
            )
            for width, count in zip(widths, blocks, strict=True)
        )
        self.fusion = Fusion(widths)

    def forward(
        self, maps: Sequence[Tensor], codes: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Maps to a normal distribution.

        Args:
            maps: (n, C, h, w) of each scale, from fine to coarse.
            codes: (n, context, h, w) of the places.

        Returns:
            z of the same shapes, and log|det| (n,) of all scales together.
        """
        total = maps[0].new_zeros(len(maps[0]))
        between = []
        for flow, one, code in zip(self.flows, maps, codes, strict=True):
            mapped, logabsdet = flow(one, code)
            between.append(mapped)
            total = total + logabsdet
        z, logabsdet = self.fusion(between)
        return z, total + logabsdet

    def inverse(self, z: Sequence[Tensor], codes: Sequence[Tensor]) -> list[Tensor]:
        """The maps that `forward` was given."""
        between = self.fusion.inverse(z)
        triples = zip(self.flows, between, codes, strict=True)
        return [flow.inverse(one, code)[0] for flow, one, code in triples]  # type: ignore[operator]
