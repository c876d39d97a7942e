"""A convolutional network without skips, whose narrowest place is a small grid or a vector."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from screener_nnu.plans import Plan, Shape

# The bottleneck's grid has so many voxels an axis, or fewer.
_NARROW = 6
_MOST_CHANNELS = 320
_GROUPS = 8


class BottleneckNetwork(nn.Module):
    """Encoder and decoder without skips: (B, C, D, H, W) -> (B, C, D, H, W).

    A stage halves axes that have more than 6 voxels, until none has. Group normalisation keeps
    what instance normalisation would throw away, the intensity.

    Args:
        plan: channels of images and width of the network.
        size: of images, (z, y, x).
        latent: channels of the bottleneck.
        factor: width as a multiple of the plan's.
        vector: numbers that the bottleneck becomes; 0 leaves it a grid.
        outputs: numbers that the encoder gives for each number that the decoder takes.

    Attributes:
        grid: of the bottleneck, (z, y, x).
    """

    def __init__(
        self,
        plan: Plan,
        size: Shape,
        latent: int,
        factor: int = 1,
        vector: int = 0,
        outputs: int = 1,
    ) -> None:
        """Builds the stages."""
        super().__init__()
        width = factor * base_width(plan)
        sizes, strides = narrowing(size)
        self.grid = sizes[-1]
        channels = [min(_MOST_CHANNELS, width * min(4, 2**n)) for n in range(len(strides))]
        down: list[nn.Module] = []
        before = plan.channels
        for stride, after in zip(strides, channels, strict=True):
            down += [_block(before, after, stride)]
            before = after
        up: list[nn.Module] = []
        if vector:
            numbers = latent * math.prod(self.grid)
            down += [nn.Conv3d(before, latent, 1), nn.Flatten()]
            down += [nn.Linear(numbers, outputs * vector)]
            up += [nn.Linear(vector, numbers), nn.Unflatten(1, (latent, *self.grid))]
        else:
            down += [nn.Conv3d(before, outputs * latent, 1)]
        self.encoder = nn.Sequential(*down)
        up += [_block(latent, before, (1, 1, 1))]
        for goal, after in zip(sizes[-2::-1], [*channels[-2::-1], width], strict=True):
            up += [nn.Upsample(size=goal, mode="nearest"), _block(before, after, (1, 1, 1))]
            before = after
        self.decoder = nn.Sequential(*up)
        self.output = nn.Conv3d(before, plan.channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions of images, float32; the encoder must give what the decoder takes."""
        return self.decode(self.encoder(images))

    def decode(self, latent: Tensor) -> Tensor:
        """Images, float32 also under mixed precision: half of it would have some 200 values.

        Args:
            latent: (B, latent, *grid), or (B, vector).
        """
        maps = self.decoder(latent)
        with torch.autocast(maps.device.type, enabled=False):
            images: Tensor = self.output(maps.float())
        return images


def base_width(plan: Plan) -> int:
    """Channels of the first stage of the plan's UNet."""
    return int(plan.architecture["arch_kwargs"]["features_per_stage"][0])


def narrowing(size: Shape) -> tuple[list[Shape], list[Shape]]:
    """Sizes from that of an image to the bottleneck's, and the strides between them.

    Example:
        >>> narrowing((1, 40, 20))
        ([(1, 40, 20), (1, 20, 10), (1, 10, 5), (1, 5, 5)], [(1, 2, 2), (1, 2, 2), (1, 2, 1)])
    """
    sizes: list[Shape] = [size]
    strides: list[Shape] = []
    while max(sizes[-1]) > _NARROW or not strides:
        z, y, x = (2 if n > _NARROW else 1 for n in sizes[-1])
        strides.append((z, y, x))
        d, h, w = (-(-n // s) for n, s in zip(sizes[-1], strides[-1], strict=True))
        sizes.append((d, h, w))
    return sizes, strides


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation in 8 groups, or in fewer where 8 do not divide the channels."""
    groups = next(g for g in range(min(_GROUPS, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def _block(before: int, after: int, stride: Shape) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(before, after, 3, stride, padding=1, bias=False),
        group_norm(after),
        nn.LeakyReLU(0.01, inplace=True),
    )
