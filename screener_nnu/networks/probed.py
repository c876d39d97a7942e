"""A light head on the maps of all stages of a frozen UNet, and `ProbedUNet`, which has one."""

from __future__ import annotations

from collections.abc import Mapping
from pydoc import locate
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.networks.levels import OUTPUT, run_levels, stages_of
from screener_nnu.plans import Shape


class LevelPerceptron(nn.Module):
    """A perceptron of one hidden layer on the maps of all stages of a UNet, place by place.

    Its first layer is applied to each map by itself, and what comes of them is added: that may be
    done at the resolution of each map before they are brought to one.

    Args:
        levels: channels of each map, by name.
        outputs: of the perceptron.
        hidden: width of the hidden layer.
        convolution: class of its layers, `nn.Conv3d` for maps of volumes.
    """

    def __init__(
        self,
        levels: Mapping[str, int],
        outputs: int,
        hidden: int,
        convolution: Any = nn.Conv3d,
    ) -> None:
        """Builds the layers."""
        super().__init__()
        self.names, self.widths = tuple(levels), tuple(levels.values())
        self.lifts = nn.ModuleDict(
            {
                name: convolution(width, hidden, 1, bias=False)
                for name, width in zip(self.names, self.widths, strict=True)
            }
        )
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.act = nn.GELU()
        self.out = convolution(hidden, outputs, 1)

    def of_lifted(self, total: torch.Tensor) -> torch.Tensor:
        """Outputs (B, outputs, ...) of the sum of all lifted maps (B, hidden, ...)."""
        bias = self.bias.view(1, -1, *(1 for _ in total.shape[2:]))
        outputs: torch.Tensor = self.out(self.act(total + bias))
        return outputs

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Outputs of maps (B, sum of `widths`, ...) that have one resolution already."""
        parts = zip(self.names, maps.split(self.widths, dim=1), strict=True)
        first, *others = (self.lifts[name](part) for name, part in parts)
        return self.of_lifted(sum(others, first))


class ProbedUNet(LevelPerceptron):
    """A UNet of nnU-Net that stays as it is, and a perceptron on the maps of all its stages.

    The perceptron sees the maps of encoder and decoder, interpolated linearly to the image. Its
    first layer works before the interpolation, which gives the same: both are linear, and weights
    of the interpolation sum to one.

    nnU-Net builds it as any network that a plan names, so its commands predict with it wherever
    screener_nnu is installed.

    Args:
        input_channels, num_classes: of the whole network.
        unet: import path of the UNet's class.
        hidden: width of the hidden layer.
        deep_supervision: nnU-Net asks; there is one output whatever it says.
        arguments: of the UNet.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        unet: str,
        hidden: int = 64,
        deep_supervision: bool = False,
        **arguments: Any,
    ) -> None:
        """Builds the UNet, with the initial weights that nnU-Net gives it, and the head."""
        made: Any = locate(unet)
        network = made(
            input_channels=input_channels, num_classes=1, deep_supervision=False, **arguments
        )
        if hasattr(network, "initialize"):
            network.apply(network.initialize)
        levels = stages_of(network)
        widths = {name: level.channels for name, level in levels.items()}
        super().__init__(widths, num_classes, hidden, arguments["conv_op"])
        self.unet = network.requires_grad_(False)
        self._strides = {name: level.stride for name, level in levels.items()}
        self._mode = {5: "trilinear", 4: "bilinear"}[self.out.weight.ndim]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, classes, ...) of images (B, C, ...), volumes or pictures."""
        shape = image.shape[2:]
        sums: dict[Shape, torch.Tensor] = {}

        def take(name: str, maps: torch.Tensor) -> None:
            if name != OUTPUT:
                lifted, stride = self.lifts[name](maps), self._strides[name]
                sums[stride] = sums[stride] + lifted if stride in sums else lifted

        run_levels(self.unet, image, take)
        # Maps of one resolution are spread together.
        spread = [self._spread(maps, shape) for maps in sums.values()]
        return self.of_lifted(sum(spread[1:], spread[0]))

    @torch.no_grad()
    def features(self, image: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Maps (n, sum of `widths`), float32, at some voxels of an image.

        Args:
            image: one, (1, C, ...).
            places: flat indices (n,) of its voxels.
        """
        shape = image.shape[2:]
        found: dict[str, torch.Tensor] = {}
        # Centres of the voxels, -1 to 1 along each axis, x first.
        indices = torch.unravel_index(places, tuple(shape))
        centres = [(2 * i + 1) / n - 1 for i, n in zip(indices, shape, strict=True)]
        grid = torch.stack(centres[::-1], dim=1).view(1, len(places), *(1 for _ in shape[1:]), -1)

        def take(name: str, maps: torch.Tensor) -> None:
            if name == OUTPUT:
                return
            if maps.shape[2:] == shape:
                found[name] = maps[0].flatten(1)[:, places].T.float()
                return
            # What `_spread` gives there, without the map of all voxels.
            at = F.grid_sample(maps.float(), grid, padding_mode="border", align_corners=False)
            found[name] = at[0].flatten(1).T

        run_levels(self.unet, image, take)
        return torch.cat([found[name] for name in self.names], dim=1)

    @torch.no_grad()
    def set_head(self, first: nn.Linear, last: nn.Linear) -> None:
        """Takes over the layers of a perceptron of `features`."""
        pieces = first.weight.split(self.widths, dim=1)
        for name, piece in zip(self.names, pieces, strict=True):
            lift: Any = self.lifts[name]
            lift.weight.copy_(piece.view_as(lift.weight))
        self.bias.copy_(first.bias)
        self.out.weight.copy_(last.weight.view_as(self.out.weight))
        self.out.bias.copy_(last.bias)

    def _spread(self, maps: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        if maps.shape[2:] == shape:
            return maps
        return F.interpolate(maps, tuple(shape), mode=self._mode, align_corners=False)


def backbone_of(network: nn.Module) -> nn.Module:
    """The UNet that weights of a pre-training fit."""
    return network.unet if isinstance(network, ProbedUNet) else network
