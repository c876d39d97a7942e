"""Residual networks from vectors to images of any size and back, for adversarial training.

References:
    Gulrajani et al., Improved training of Wasserstein GANs, NeurIPS 2017; Schlegl et al., f-AnoGAN:
    fast unsupervised anomaly detection with generative adversarial networks, Medical Image
    Analysis 2019.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from screener_nnu.baselines.bottleneck import group_norm, narrowing
from screener_nnu.networks.image_decoder import convolution
from screener_nnu.plans import Shape

# Channels of the coarsest grids, as a multiple of the width.
_MOST = 8


class Generator(nn.Module):
    """Vectors (B, latent) to images (B, C, D, H, W) in [-1, 1].

    A linear layer makes a grid of 4 to 6 voxels an axis. Residual blocks double it and halve its
    channels; sizes that are no multiple are met exactly. Groups of channels are normalised in each
    image by itself, so that an image does not depend on its batch.

    Args:
        latent: numbers of a vector.
        channels: of the images.
        size: of the images, (z, y, x).
        width: channels at the size of the images.
    """

    def __init__(self, latent: int, channels: int, size: Shape, width: int) -> None:
        """Builds the layers; random weights come from torch's global state."""
        super().__init__()
        sizes, widths = _stages(size, width)
        sizes, widths, flat = sizes[::-1], widths[::-1], size[0] == 1
        self.linear = nn.Linear(latent, widths[0] * math.prod(sizes[0]))
        self.reshape = nn.Unflatten(1, (widths[0], *sizes[0]))
        stages = zip(widths, widths[1:], sizes[1:], strict=False)
        self.blocks = nn.Sequential(*(_Up(*stage, flat) for stage in stages))
        last = widths[-1]
        self.output = nn.Sequential(group_norm(last), nn.ReLU(), convolution(last, channels, flat))

    def forward(self, z: Tensor) -> Tensor:
        """Images of vectors."""
        images: Tensor = self.output(self.blocks(self.reshape(self.linear(z)))).tanh()
        return images


class ImageToVector(nn.Module):
    """Images (B, C, D, H, W) to vectors (B, numbers): a critic, or an encoder.

    The mirror image of a `Generator`. All channels are normalised together in each image by
    itself, as a penalty on the gradient of each image needs it.

    Args:
        numbers: of a vector.
        channels, size, width: see `Generator`.
    """

    def __init__(self, numbers: int, channels: int, size: Shape, width: int) -> None:
        """Builds the layers; random weights come from torch's global state."""
        super().__init__()
        (sizes, widths), flat = _stages(size, width), size[0] == 1
        stages = zip(widths, widths[1:], sizes, sizes[1:], strict=False)
        first = convolution(channels, widths[0], flat)
        self.blocks = nn.Sequential(first, *(_Down(*stage, flat) for stage in stages))
        self.linear = nn.Linear(widths[-1] * math.prod(sizes[-1]), numbers)

    def maps(self, images: Tensor) -> Tensor:
        """The last maps (B, channels, d, h, w), of 4 to 6 voxels an axis."""
        maps: Tensor = self.blocks(images)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        """Vectors of images."""
        vectors: Tensor = self.linear(self.maps(images).flatten(1))
        return vectors


class _Up(nn.Module):
    """Two convolutions at the next size, beside a projection of what comes in."""

    def __init__(self, before: int, after: int, goal: Shape, flat: bool) -> None:
        super().__init__()
        self.goal = goal
        self.norms = nn.ModuleList([group_norm(before), group_norm(after)])
        self.first, self.second = convolution(before, after, flat), convolution(after, after, flat)
        self.skip = nn.Conv3d(before, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.first(F.interpolate(F.relu(self.norms[0](maps)), self.goal, mode="nearest"))
        inner = self.second(F.relu(self.norms[1](inner)))
        return inner + F.interpolate(self.skip(maps), self.goal, mode="nearest")


class _Down(nn.Module):
    """Two convolutions whose result is averaged to the next size, beside a projection."""

    def __init__(self, before: int, after: int, size: Shape, goal: Shape, flat: bool) -> None:
        super().__init__()
        # Of an odd axis the rest is averaged by itself.
        self.stride = [-(-n // m) for n, m in zip(size, goal, strict=True)]
        self.norms = nn.ModuleList([nn.GroupNorm(1, before) for _ in range(2)])
        self.first = convolution(before, before, flat)
        self.second = convolution(before, after, flat)
        self.skip = nn.Conv3d(before, after, 1)

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.first(F.relu(self.norms[0](maps)))
        inner = self.second(F.relu(self.norms[1](inner)))
        return self._averaged(inner) + self.skip(self._averaged(maps))

    def _averaged(self, maps: Tensor) -> Tensor:
        return F.avg_pool3d(maps, self.stride, ceil_mode=True)


def _stages(size: Shape, width: int) -> tuple[list[Shape], list[int]]:
    """Sizes from that of an image to the smallest grid, and the channels there.

    Example:
        >>> _stages((40, 40, 40), 12)[1]
        [12, 24, 48, 96]
    """
    sizes, _ = narrowing(size)
    return sizes, [width * min(_MOST, 2**n) for n in range(len(sizes))]
