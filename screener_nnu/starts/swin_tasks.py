"""Three tasks at once: cut-outs are filled in, turns are told, and two views are matched."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from screener_nnu.errors import ScreenerError
from screener_nnu.losses.pmsacl import ClassContrast
from screener_nnu.networks.planes import decoded, encoder_maps
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import Count, Fraction, Positive, PositiveRange
from screener_nnu.starts.base import StartMethod

_TURNS = 4
# So many boxes are drawn: more than 30 % of a volume needs at their mean size.
_BOXES = 160


@dataclass(frozen=True)
class SwinTasksSettings:
    """Of the three tasks.

    Attributes:
        most_hidden: share of a view that boxes of noise cover at most, or nearly so, and as much
            again boxes of another image.
        edges: of a box, as a share of the image's.
        embedding: numbers of the vector by which views are matched.
        temperature: of the contrast.
    """

    most_hidden: Fraction = 0.3
    edges: PositiveRange = (0.05, 0.25)
    embedding: Count = 512
    temperature: Positive = 0.5


class SwinTasks(StartMethod):
    """Restoring, turns and contrast of two views of each image, each of weight 1.

    A view is turned by 0, 90, 180 or 270 degrees in plane, and boxes of it are noise or voxels of
    another image. Images that are no square in plane are cut to the square in their middle.

    References:
        Tang et al., Self-supervised pre-training of Swin transformers for 3D medical image
        analysis, CVPR 2022, here with the plan's UNet: heads see the mean of its deepest map, and
        its own decoder restores.
    """

    Settings = SwinTasksSettings
    least_crops = 2
    # Mirrored along both axes, an image is one that was turned by 180 degrees.
    mirrors = False
    paper = "Self-supervised pre-training of Swin transformers for 3D medical image analysis"

    def __init__(
        self,
        plan: Plan,
        size: Shape,
        most_hidden: float,
        edges: tuple[float, float],
        embedding: int,
        temperature: float,
    ) -> None:
        """Builds network and heads.

        Raises:
            ScreenerError: no square of the images suits the network.
        """
        super().__init__(plan, size, plan.channels)
        self.side = _square(size, plan.divisor)
        self.most_hidden, self.edges = most_hidden, edges
        width = int(self.network.encoder.output_channels[-1])
        self.turn = nn.Linear(width, _TURNS)
        self.embed = nn.Linear(width, embedding)
        self.contrast = ClassContrast(temperature)

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """The three losses."""
        count, device = len(images), images.device
        square = _middle(images, self.side).repeat(2, 1, 1, 1, 1)
        turns = torch.randint(_TURNS, (2 * count,), generator=generator, device=device)
        views = turned(square, turns)
        noise = torch.randn(views.shape, generator=generator, device=device)
        # Of the same view of the next image.
        others = views.unflatten(0, (2, count)).roll(1, 1).flatten(0, 1)
        spoilt = views
        for filling in (noise, others):
            hidden = boxes(views, self.most_hidden, self.edges, generator)
            spoilt = torch.where(hidden, filling, spoilt)
        maps = encoder_maps(self.network, spoilt)
        restored = decoded(self.network, maps)
        vectors = maps[-1].float().flatten(2).mean(2)
        embedded = F.normalize(self.embed(vectors).float(), dim=1)
        sources = torch.arange(count, device=device).repeat(2)
        contrast, _ = self.contrast(embedded, sources, torch.zeros_like(sources))
        return {
            "restoring": (restored.float() - views.float()).abs().mean(),
            "turns": F.cross_entropy(self.turn(vectors).float(), turns),
            "contrast": contrast,
        }


def turned(images: Tensor, turns: Tensor) -> Tensor:
    """Images (B, C, D, N, N), each turned in plane by so many times 90 degrees.

    Args:
        images: squares in plane.
        turns: (B,) 0 to 3, as `torch.rot90` counts.
    """
    # All four and a choice: the device need not tell the process what was drawn.
    every = torch.stack([images.rot90(k, (-2, -1)) for k in range(_TURNS)])
    return every[turns, torch.arange(len(images), device=images.device)]


def boxes(
    images: Tensor, most: float, edges: tuple[float, float], generator: torch.Generator
) -> Tensor:
    """Masks (B, 1, D, H, W) of random boxes, up to a share of each image that is drawn as well.

    Boxes are added until their volumes, summed, reach the share that is uniform up to `most`; what
    lies beyond the border is cut off.

    Args:
        images: (B, C, D, H, W).
        most: largest share.
        edges: shortest and longest edge of a box, as a share of the image's.
        generator: on the device of the images.
    """
    count, shape, device = len(images), images.shape[2:], images.device
    low, high = edges
    sides = low + (high - low) * torch.rand(count, _BOXES, 3, generator=generator, device=device)
    starts = torch.rand(count, _BOXES, 3, generator=generator, device=device) * (1 - low)
    target = most * torch.rand(count, 1, generator=generator, device=device)
    inside, volume = [], torch.ones(count, _BOXES, device=device)
    for axis, length in enumerate(shape):
        edge = (sides[:, :, axis] * length).round().clamp_min(1)
        first = (starts[:, :, axis] * length).floor()
        place = torch.arange(length, device=device)
        inside.append((place >= first[..., None]) & (place < (first + edge)[..., None]))
        volume = volume * inside[-1].sum(-1) / length
    before = volume.cumsum(1) - volume
    z, y, x = (one.float() for one in inside)
    z = z * (before < target)[..., None]
    planes = (y[..., :, None] * x[..., None, :]).flatten(2)
    covered = z.mT @ planes
    return (covered > 0).view(count, 1, *shape)


def _square(size: Shape, divisor: Shape) -> int:
    """Voxels of a square in plane that suits image and network."""
    step = math.lcm(*divisor[1:])
    side = min(size[1:]) // step * step
    cells = side // divisor[1] * (side // divisor[2]) * (size[0] // divisor[0])
    if cells < 2:  # a map of a single voxel cannot be normalised
        raise ScreenerError(
            f"crops of {list(size)} voxels hold no square that swin_tasks can turn and the network "
            "takes: give larger ones in start.crop_size"
        )
    return side


def _middle(images: Tensor, side: int) -> Tensor:
    y, x = ((n - side) // 2 for n in images.shape[-2:])
    return images[..., y : y + side, x : x + side]
