"""From latent vectors to images and back to a number: a decoder and a critic of any image size.

References:
    Chen et al., Deep one-class classification via interpolated Gaussian descriptor, AAAI 2022
    (https://arxiv.org/abs/2101.10043); the critic is that of Berthelot et al., Understanding and
    improving interpolation in autoencoders via an adversarial regularizer, ICLR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.plans import Shape

# Edge of the map that a decoder begins with, at least; and channels that it keeps, at least.
_FIRST_EDGE, _LEAST_CHANNELS = 4, 16
_CRITIC_WIDTH, _CRITIC_MAX = 32, 256
_SLOPE = 0.2


def doublings(size: Shape) -> tuple[int, int, int]:
    """How often each axis is doubled from a map with edges of 4 to 7; a shorter axis never is.

    Example:
        >>> doublings((1, 256, 256)), doublings((1, 96, 128)), doublings((40, 40, 40))
        ((0, 6, 6), (0, 4, 5), (3, 3, 3))
    """
    z, y, x = (max(0, (n // _FIRST_EDGE).bit_length() - 1) for n in size)
    return z, y, x


class Decoder(nn.Module):
    """Latent vectors (B, latent) to images (B, C, D, H, W), linear at the end.

    A linear layer makes a map of `width` channels. Residual blocks double it and halve its
    channels, 16 at least, until it has the image's size; where that is no multiple, more is made
    and cut off.

    Args:
        latent: numbers of a vector.
        channels: of the images.
        size: (D, H, W) of the images.
        width: channels of the first map.
    """

    def __init__(self, latent: int, channels: int, size: Shape, width: int = 512) -> None:
        """Builds the layers; random weights come from torch's global state."""
        super().__init__()
        self.size = size
        counts = doublings(size)
        steps = max(counts)
        self.first = tuple(-(-n // 2**k) for n, k in zip(size, counts, strict=True))
        positions = self.first[0] * self.first[1] * self.first[2]
        self.linear = nn.Linear(latent, width * positions)
        widths = [max(_LEAST_CHANNELS, width // 2**i) for i in range(steps + 1)]
        self.blocks = nn.ModuleList(
            # A shorter axis is doubled in the last blocks alone.
            _UpBlock(a, b, [2 if step >= steps - k else 1 for k in counts], size[0] == 1)
            for step, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True))
        )
        self.output = convolution(widths[-1], channels, size[0] == 1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """Images, float32 also under mixed precision: half of it would have some 200 values."""
        maps = self.linear(z).view(len(z), -1, *self.first)
        for block in self.blocks:
            maps = block(maps)
        depth, height, width = self.size
        with torch.autocast(z.device.type, enabled=False):
            images: torch.Tensor = self.output(maps.float())
        return images[:, :, :depth, :height, :width]


class _UpBlock(nn.Module):
    """Nearest doubling and two convolutions beside a projection of what comes in."""

    def __init__(self, inner: int, outer: int, factor: Sequence[int], flat: bool) -> None:
        super().__init__()
        self.factor = [float(f) for f in factor]
        self.first, self.second = convolution(inner, outer, flat), convolution(outer, outer, flat)
        self.norms = nn.ModuleList(nn.BatchNorm3d(n) for n in (outer, outer))
        self.skip = nn.Conv3d(inner, outer, 1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        maps = F.interpolate(maps, scale_factor=self.factor, mode="nearest")
        inner = F.leaky_relu(self.norms[0](self.first(maps)), _SLOPE)
        inner = self.norms[1](self.second(inner))
        return F.leaky_relu(inner + self.skip(maps), _SLOPE)


class Critic(nn.Module):
    """Guesses (B,) how much of a second image there is in images (B, C, D, H, W).

    Convolutions of stride 2 down to a few positions, whose outputs are averaged; no layer
    normalises, so that an image is judged alone.

    Args:
        channels: of the images.
        size: (D, H, W) of the images.
    """

    def __init__(self, channels: int, size: Shape) -> None:
        """Builds the layers; random weights come from torch's global state."""
        super().__init__()
        counts, layers, inner = doublings(size), [], channels
        for step in range(max(counts)):
            outer = min(_CRITIC_MAX, _CRITIC_WIDTH * 2**step)
            stride = [2 if step < k else 1 for k in counts]
            layers += [convolution(inner, outer, size[0] == 1, stride), nn.LeakyReLU(_SLOPE)]
            inner = outer
        self.layers = nn.Sequential(*layers, convolution(inner, 1, size[0] == 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The guesses, float32."""
        guesses: torch.Tensor = self.layers(images)
        return guesses.float().flatten(1).mean(1)


def convolution(inner: int, outer: int, flat: bool, stride: int | Sequence[int] = 1) -> nn.Conv3d:
    """Kernel of 3 on each axis that there is."""
    kernel, padding = ((1, 3, 3), (0, 1, 1)) if flat else ((3, 3, 3), (1, 1, 1))
    return nn.Conv3d(inner, outer, kernel, tuple(_three(stride)), padding)  # type: ignore[arg-type]


def _three(value: int | Sequence[int]) -> Sequence[int]:
    return [value] * 3 if isinstance(value, int) else value
