"""Contextual position: which parts of a region a crop overlaps, told by what they look like."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from screener_nnu.descriptors.image_encoder import pooled_maps
from screener_nnu.devices import small_tensor
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.planes import encoder_maps
from screener_nnu.plans import Plan, Shape
from screener_nnu.sampling.patches import cut_patches
from screener_nnu.setting_values import Count, NotNegative, Within
from screener_nnu.starts.base import ENCODER, StartMethod

logger = logging.getLogger(__name__)

_EPSILON = 1e-6
_SMALLEST_GRID = 2


@dataclass(frozen=True)
class ContextualPositionSettings:
    """Of contextual position.

    Attributes:
        grid: base crops along each axis in plane; all slices belong to each.
        least_edge: voxels in plane of a base crop, below which the grid has fewer of them.
        crops: drawn in each image.
        width: of the projector.
        regulariser: weight of what keeps base crops apart.
    """

    grid: Annotated[int, Within(at_least=_SMALLEST_GRID)] = 3
    least_edge: Count = 16
    crops: Count = 2
    width: Count = 512
    regulariser: NotNegative = 1.0


class ContextualPosition(StartMethod):
    """An image is cut into base crops; others, as large, are drawn anywhere in the cut region.

    A crop's similarity to a base crop, the positive part of their cosine, is to be the share of the
    crop that lies in it. Base crops get no gradient from that, and are kept apart by another term.

    References:
        Wu, Zhuang and Chen, VoCo: a simple-yet-effective volume contrastive learning framework for
        3D medical image analysis, CVPR 2024.
    """

    Settings = ContextualPositionSettings
    trains = ENCODER
    paper = "VoCo: a simple-yet-effective volume contrastive learning framework"
    bases: Tensor
    origin: Tensor
    room: Tensor

    def __init__(
        self,
        plan: Plan,
        size: Shape,
        grid: int,
        least_edge: int,
        crops: int,
        width: int,
        regulariser: float,
    ) -> None:
        """Finds the grid, and builds encoder and projector.

        Raises:
            ScreenerError: the images are too small for four base crops.
        """
        super().__init__(plan, size, 1)
        self.crops, self.regulariser = crops, regulariser
        found, self.edges = fitting_grid(size, plan.divisor, grid, least_edge)
        if found < grid:
            logger.info(
                "contextual_position: crops of %s voxels leave room for %d x %d base crops in "
                "place of %d x %d (start.crop_size)",
                list(size),
                found,
                found,
                grid,
                grid,
            )
        _, y, x = self.edges
        margins = [0, *((n - found * edge) // 2 for n, edge in zip(size[1:], (y, x), strict=True))]
        places = [(0, j * y, i * x) for j in range(found) for i in range(found)]
        for name, values in (("bases", places), ("origin", margins), ("room", places[-1])):
            self.register_buffer(name, torch.tensor(values), persistent=False)
        channels = 2 * sum(int(n) for n in self.network.encoder.output_channels)
        self.projector = _projector(channels, width)

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Prediction of the overlaps, and likeness of base crops."""
        count, places = len(images), len(self.bases)
        starts = self.drawn_starts(count, generator)
        cut = torch.cat([self.bases.expand(count, -1, -1), starts], dim=1)
        index = torch.arange(count, device=images.device).repeat_interleave(cut.shape[1])
        crops = cut_patches(images, index, cut.flatten(0, 1) + self.origin, self.edges)
        vectors = self.projector(pooled_maps(encoder_maps(self.network, crops))).float()
        vectors = F.normalize(vectors, dim=-1).unflatten(0, (count, -1))
        bases, drawn = vectors[:, :places], vectors[:, places:]
        labels = overlap_shares(starts, self.bases, self.edges)
        with torch.autocast(images.device.type, enabled=False):
            similarity = (drawn @ bases.detach().mT).relu()
            likeness = likeness_of_bases(bases)
        return {
            "overlap": overlap_loss(similarity, labels),
            "likeness": self.regulariser * likeness,
        }

    def drawn_starts(self, count: int, generator: torch.Generator) -> Tensor:
        """First voxels (count, crops, 3) of crops, from the start of the region on."""
        drawn = torch.rand(count, self.crops, 3, generator=generator, device=generator.device)
        return (drawn * (self.room + 1)).long().minimum(self.room)


def _projector(channels: int, width: int) -> nn.Sequential:
    """Three linear layers; what all crops of a step have in common is taken out behind each."""
    layers: list[nn.Module] = []
    for inner in (channels, width, width):
        # Without it all vectors point the same way from the start, where a cosine has no slope.
        common = nn.BatchNorm1d(width, affine=False, track_running_stats=False)
        layers += [nn.Linear(inner, width, bias=False), common, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def fitting_grid(size: Shape, divisor: Shape, grid: int, least_edge: int) -> tuple[int, Shape]:
    """The largest grid whose base crops are large enough, and their voxels (z, y, x).

    Two by two base crops may be smaller than asked for.

    Args:
        size: of the images.
        divisor: that the network asks for.
        grid: largest number of base crops along an axis in plane.
        least_edge: of base crops in plane, in voxels.

    Raises:
        ScreenerError: not even two by two fit, or the deepest map of one would be a single voxel,
            which cannot be normalised.

    Example:
        >>> fitting_grid((32, 96, 96), (8, 8, 8), 3, 16)
        (3, (32, 32, 32))
        >>> fitting_grid((40, 40, 40), (8, 8, 8), 3, 16)
        (2, (40, 16, 16))
    """
    for count in range(grid, _SMALLEST_GRID - 1, -1):
        y, x = (n // count // d * d for n, d in zip(size[1:], divisor[1:], strict=True))
        deepest = math.prod(n // d for n, d in zip((size[0], y, x), divisor, strict=True))
        if deepest > 1 and (min(y, x) >= least_edge or count == _SMALLEST_GRID):
            return count, (size[0], y, x)
    raise ScreenerError(
        f"crops of {list(size)} voxels are too small for contextual_position, which cuts them into "
        f"2 x 2 base crops of at least {list(divisor)} voxels each, two such cells at least: give "
        "larger ones in start.crop_size"
    )


def overlap_shares(starts: Tensor, bases: Tensor, edges: Shape) -> Tensor:
    """Share of each crop that lies in each base crop, (B, crops, bases).

    Args:
        starts: first voxels (B, crops, 3) of crops.
        bases: first voxels (bases, 3).
        edges: voxels per axis of either.
    """
    size = small_tensor(edges, starts.device)
    apart = (starts[:, :, None] - bases).abs()
    return ((size - apart).clamp_min(0) / size).prod(-1)


def overlap_loss(similarity: Tensor, labels: Tensor) -> Tensor:
    """- sum y log(1 - |y - s|) / sum y - mean over y = 0 of log(1 - s), over all crops.

    Args:
        similarity: s in [0, 1] of crops and base crops, of any shape.
        labels: y of the same shape.
    """
    right = (1 - (labels - similarity).abs() + _EPSILON).log()
    apart = labels == 0
    near = -(labels * right).sum() / labels.sum().clamp_min(_EPSILON)
    return near - (right * apart).sum() / apart.sum().clamp_min(1)


def likeness_of_bases(bases: Tensor) -> Tensor:
    """Mean positive part of the cosine of pairs of base crops of one image.

    Args:
        bases: (B, bases, channels) of unit length.
    """
    count = bases.shape[1]
    similarity = (bases @ bases.mT).relu()
    others = 1 - torch.eye(count, device=bases.device)
    return (similarity * others).sum() / (len(bases) * count * (count - 1))
