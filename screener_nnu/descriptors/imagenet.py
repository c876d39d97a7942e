"""Features of slices from a network of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from screener_nnu.descriptors.backbone import HEAD, LEVELS, Backbone, load_backbone
from screener_nnu.descriptors.base import CellDescriptor
from screener_nnu.descriptors.cells import padded_to
from screener_nnu.descriptors.kept_channels import draw_channels, of_each_map
from screener_nnu.descriptors.slices import pooled_slices
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Shape
from screener_nnu.pretext_settings import PACKAGED_ARCHITECTURE
from screener_nnu.setting_values import CountOrNone, OneOf

#: Axis along which a plane has its slices.
PLANES = {"axial": (0,), "all": (0, 1, 2)}


@dataclass(frozen=True)
class ImageNetSettings:
    """Which network, which slices, and how many channels.

    Attributes:
        architecture: of timm, see `load_backbone`.
        weights: file with its state dictionary; empty for the installed package.
        planes: `axial`, or `all` for axial, coronal and sagittal slices.
        most_channels: size of the random subset of all channels; 0 keeps them all. PaDiM: 100.
        seed: of the subset.
        maps: `levels`, of strides 4, 8 and 16, or `head`, that of the last convolution, which the
            vector of a picture is the mean of.
    """

    architecture: str = PACKAGED_ARCHITECTURE
    weights: str = ""
    planes: Annotated[str, OneOf(*PLANES)] = "axial"
    most_channels: CountOrNone = 100
    seed: CountOrNone = 0
    maps: Annotated[str, OneOf(LEVELS, HEAD)] = LEVELS


class SliceFeatures(CellDescriptor):
    """Slice by slice through a frozen two-dimensional network: its maps, concatenated.

    The colours that the network sees are a slice and its two neighbours, of a colour picture its
    own. The maps are spread over their cells, see `average_cells`, and concatenated, coarser ones
    behind finer ones, plane by plane. Slices are filled up to multiples of the last stride with
    zeros.

    Args:
        backbone: the network.
        axes: along which there are slices, a plane each.
        most_channels, seed: see `ImageNetSettings`.
        origin: see `Descriptor`.
        slices_at_once: that are given to the network at a time, which bounds the memory.
    """

    kept: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        backbone: Backbone,
        axes: tuple[int, ...] = PLANES["axial"],
        most_channels: int = 100,
        seed: int = 0,
        origin: Sequence[str | bytes] = (),
        slices_at_once: int = 16,
    ) -> None:
        """Draws the channels."""
        kept = draw_channels(sum(backbone.widths) * len(axes), most_channels, seed)
        super().__init__(len(kept), *origin)
        self.network = backbone.network
        self.axes = axes
        self.slices_at_once = slices_at_once
        coarsest = backbone.strides[-1]
        self.divisor = (1, coarsest, coarsest) if axes == (0,) else (coarsest,) * 3
        self._widths, self._strides = backbone.widths, backbone.strides
        self.register_buffer("kept", kept)
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1))

    @torch.no_grad()
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """See `Descriptor.pooled`; only the cells of some slices are there at a time."""
        of_planes = of_each_map(self.kept, [sum(self._widths)] * len(self.axes))
        return torch.cat(
            [
                torch.cat([self._plane(volume, a, pooling, kept) for volume in image])
                for a, kept in zip(self.axes, of_planes, strict=True)
                if len(kept)
            ],
            dim=1,
        )

    def _plane(
        self, volume: torch.Tensor, axis: int, pooling: Shape, kept: torch.Tensor
    ) -> torch.Tensor:
        """Pooled features (1, channels, ...) of the slices along one axis of (C, D, H, W)."""
        order = (axis, *(a for a in range(3) if a != axis))
        z, y, x = order
        channels = of_each_map(kept, self._widths)

        def features(slices: torch.Tensor) -> list[torch.Tensor]:
            maps = self.network((slices - self.mean) / self.std)
            return [m[:, chosen] for m, chosen in zip(maps, channels, strict=True)]

        turned = volume.float().permute(0, *(a + 1 for a in order))
        shape = (turned.shape[1], turned.shape[2], turned.shape[3])
        filled = padded_to(turned[None], (1, self._strides[-1], self._strides[-1]))[0]
        steps = (pooling[z], pooling[y], pooling[x])
        strides = [(s, s) for s in self._strides]
        maps = pooled_slices(filled, features, strides, shape, steps, self.slices_at_once)
        return maps.movedim(2, 2 + axis)


class ImageNetSlices(SliceFeatures):
    """Features of a network of photographs: maps of strides 4, 8 and 16, or the last one.

    The last one (`head`) is that of the last convolution, 1280 channels of stride 32 of an
    EfficientNet-Lite0. See `SliceFeatures`.

    References:
        Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
        Localization", https://arxiv.org/abs/2011.08785.

    Args:
        architecture, weights, planes, most_channels, seed, maps: see `ImageNetSettings`.
        slices_at_once: see `SliceFeatures`.

    Raises:
        ScreenerError: see `load_backbone`.
    """

    Settings = ImageNetSettings

    def __init__(
        self,
        architecture: str = PACKAGED_ARCHITECTURE,
        weights: str | Path = "",
        planes: str = "axial",
        most_channels: int = 100,
        seed: int = 0,
        slices_at_once: int = 16,
        maps: str = LEVELS,
    ) -> None:
        """Loads the network and draws the channels."""
        if planes not in PLANES:
            raise ScreenerError(f"planes must be {' or '.join(PLANES)}, but is {planes}")
        backbone = load_backbone(architecture, weights, maps)
        # Those of `levels` keep the origin that they had before there was a choice.
        chosen = () if maps == LEVELS else (maps,)
        origin = (architecture, planes, backbone.sha256, *chosen)
        super().__init__(backbone, PLANES[planes], most_channels, seed, origin, slices_at_once)
