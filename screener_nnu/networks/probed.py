"""`ProbedUNet`: a frozen UNet with a light head on the maps of all its stages."""

from __future__ import annotations

from pydoc import locate
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.networks.levels import OUTPUT, levels_of, run_levels
from screener_nnu.plans import Shape


class ProbedUNet(nn.Module):
    """A UNet of nnU-Net that stays as it is, and a perceptron of one hidden layer, voxel by voxel.

    The perceptron sees the maps of all stages of encoder and decoder, interpolated linearly to the
    image. Its first layer is applied to each map at the resolution of the map, which gives the
    same: both are linear, and weights of the interpolation sum to one.

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
        super().__init__()
        made: Any = locate(unet)
        self.unet = made(
            input_channels=input_channels, num_classes=1, deep_supervision=False, **arguments
        )
        if hasattr(self.unet, "initialize"):
            self.unet.apply(self.unet.initialize)
        self.unet.requires_grad_(False)
        convolution = arguments["conv_op"]
        levels = levels_of(self.unet)
        self.names = tuple(name for name in levels if name != OUTPUT)
        self.widths = tuple(levels[name].channels for name in self.names)
        self._strides = {name: levels[name].stride for name in self.names}
        self.lifts = nn.ModuleDict(
            {
                name: convolution(width, hidden, 1, bias=False)
                for name, width in zip(self.names, self.widths, strict=True)
            }
        )
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.act = nn.GELU()
        self.out = convolution(hidden, num_classes, 1)
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
        total = sum(self._spread(maps, shape) for maps in sums.values())
        logits: torch.Tensor = self.out(
            self.act(total + self.bias.view(1, -1, *(1 for _ in shape)))
        )
        return logits

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
