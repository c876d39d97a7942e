"""Where patches are taken from and where they go: boxes that lie apart from each other.

Boxes are drawn and compared on the device of the images, all images of a batch at once: every
candidate is drawn in advance, and the first suitable one is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from enum import Enum

import torch
import torch.nn.functional as F

from screener_nnu.errors import ScreenerError
from screener_nnu.pretext_settings import MedMixSettings

# Places that are tried with a size, and sizes that are drawn, before all patches are drawn anew.
_PLACES, _SIZES, _DRAWS = 20, 10, 20


class Source(Enum):
    """Where a patch is taken from."""

    OTHER = "another place of another image"
    OTHER_SAME_PLACE = "the same place of another image"
    OWN = "another place of the same image"


@dataclass(frozen=True)
class PatchBoxes:
    """Boxes of P patches, a row each, on the device of the images.

    Attributes:
        number: 1 for the first patch of an image, 2 for the second, ... (P,).
        image, source_image: indices of the batch (P,).
        start, source_start: first voxel where the patch goes, and where it is taken from (P, 3).
        size: edges in voxels (P, 3).
        voxels: of all patches together.
    """

    number: torch.Tensor
    image: torch.Tensor
    source_image: torch.Tensor
    start: torch.Tensor
    source_start: torch.Tensor
    size: torch.Tensor
    voxels: int = 0

    @classmethod
    def joined(cls, parts: list[PatchBoxes]) -> PatchBoxes:
        """The patches of several, without the number of their voxels."""
        names = [f.name for f in fields(cls) if f.name != "voxels"]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def draw_boxes(
    shape: torch.Size,
    count: int,
    source: Source,
    generator: torch.Generator,
    settings: MedMixSettings,
    bodies: torch.Tensor | None = None,
) -> PatchBoxes:
    """Draws so many patches for each image of a batch.

    Patches of one image are apart by a voxel at least. 20 places are tried with a size, then
    another size is drawn. Where none of them lies in the body as much as it should, the one that
    does so most is taken.

    Args:
        shape: of the images, (B, C, D, H, W).
        count: patches of an image.
        source: where they are taken from.
        generator: on the device of the images.
        settings: sizes, and the least part in the body.
        bodies: masks (B, D, H, W); without them all is body.

    Raises:
        ScreenerError: a patch of another image is asked for where there is none, or so many
            patches do not fit into an image.
    """
    batch, extent = shape[0], tuple(shape[2:])
    if source is not Source.OWN and batch < 2:
        raise ScreenerError(
            "patches are taken from other images, but the batch has one: set "
            "pretext.images_per_step to 2 or more"
        )
    shares = _BodyShares(bodies)
    for _ in range(_DRAWS):
        candidates = _Candidates.draw(batch, count, extent, generator, settings)
        boxes, apart = _choose(candidates, source, shares, settings.least_body)
        # The one time that the processor waits for the device.
        voxels, fits = torch.stack([boxes.size.prod(1).sum(), apart.long()]).tolist()
        if fits:
            return replace(boxes, voxels=voxels)
    raise ScreenerError(
        f"{count} patches do not fit into an image of {list(extent)} voxels without touching: set "
        "pretext.options.classes, pretext.medmix.area (pictures) or pretext.medmix.edge (volumes) "
        "lower"
    )


@dataclass(frozen=True)
class _Candidates:
    """All that is random: N sizes and places of each patch, other images and places in them.

    Attributes:
        size, start: (B, n, N, 3).
        step: (B, n) how many images further on the source lies.
        source: (B, n, T, 3) in [0, 1).
        extent: (3,) of the images.
    """

    size: torch.Tensor
    start: torch.Tensor
    step: torch.Tensor
    source: torch.Tensor
    extent: torch.Tensor

    @classmethod
    def draw(
        cls,
        batch: int,
        count: int,
        extent: tuple[int, ...],
        generator: torch.Generator,
        settings: MedMixSettings,
    ) -> _Candidates:
        def random(*shape: int) -> torch.Tensor:
            return torch.rand(batch, count, *shape, generator=generator, device=generator.device)

        voxels = torch.tensor(extent, device=generator.device)
        size = _sizes(random(_SIZES, 3), extent, settings).round().long()
        size = size.clamp_min(2).minimum(voxels)[:, :, :, None].expand(-1, -1, -1, _PLACES, -1)
        start = _starts(random(_SIZES, _PLACES, 3), size, voxels)
        step = 1 + (random() * (batch - 1)).long().clamp(max=max(batch - 2, 0))
        return cls(size.flatten(2, 3), start.flatten(2, 3), step, random(_PLACES, 3), voxels)


def _sizes(
    numbers: torch.Tensor, extent: tuple[int, ...], settings: MedMixSettings
) -> torch.Tensor:
    """Edges in voxels, not rounded, of uniform numbers (..., 3)."""
    depth, height, width = extent
    if depth > 1:
        low, high = settings.edge
        return (low + (high - low) * numbers) * numbers.new_tensor(extent)
    low, high = settings.area
    pixels = (low + (high - low) * numbers[..., 0]) * height * width
    aspect = torch.exp((2 * numbers[..., 1] - 1) * math.log(settings.aspect))
    # A patch that would be longer than the picture keeps its area, not its aspect.
    rows = (pixels * aspect).sqrt().maximum(pixels / width).clamp(max=height)
    return torch.stack([torch.ones_like(rows), rows, pixels / rows], dim=-1)


def _starts(numbers: torch.Tensor, size: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    """First voxels of boxes that lie in the image, from uniform numbers."""
    free = extent - size
    return (numbers * (free + 1)).long().minimum(free)


class _BodyShares:
    """How much of a box lies in a body, from sums over the voxels before each one.

    Args:
        bodies: (B, D, H, W), or None where all is body.
    """

    def __init__(self, bodies: torch.Tensor | None) -> None:
        self.sums = None
        if bodies is not None:
            sums = (bodies > 0).int()
            for axis in (1, 2, 3):
                sums = sums.cumsum(axis, dtype=torch.int32)
            self.sums = F.pad(sums, (1, 0, 1, 0, 1, 0))

    def of(self, image: torch.Tensor, start: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """Shares (B, N) of boxes (B, N, 3) in the bodies of the images (B,)."""
        if self.sums is None:
            return torch.ones(start.shape[:2], device=start.device)
        ends = torch.stack([start, start + size])  # (2, B, N, 3)
        z, y, x = ends[:, None, None, ..., 0], ends[:, None, ..., 1], ends[..., 2]
        corners = self.sums[image[:, None], z, y, x]  # (2, 2, 2, B, N)
        return corners.diff(dim=0).diff(dim=1).diff(dim=2)[0, 0, 0] / size.prod(-1)


def _choose(
    candidates: _Candidates, source: Source, shares: _BodyShares, least: float
) -> tuple[PatchBoxes, torch.Tensor]:
    """The first suitable candidates, and whether all patches lie apart."""
    batch, count = candidates.step.shape
    images = torch.arange(batch, device=candidates.step.device)
    apart = torch.ones((), dtype=torch.bool, device=images.device)
    patches: list[PatchBoxes] = []
    for k in range(count):
        start, size = candidates.start[:, k], candidates.size[:, k]
        rank = shares.of(images, start, size).clamp(max=least)
        for other in patches:
            rank = rank.where(_are_apart(start, size, other.start, other.size), -1)
        best, place = rank.max(1)
        apart = apart & (best >= 0).all()
        start, size = _taken(start, place), _taken(size, place)
        from_images = images if source is Source.OWN else (images + candidates.step[:, k]) % batch
        from_start = start
        if source is not Source.OTHER_SAME_PLACE:
            offered = _starts(candidates.source[:, k], size[:, None], candidates.extent)
            rank = shares.of(from_images, offered, size[:, None]).clamp(max=least)
            if source is Source.OWN:
                rank = rank.where((offered != start[:, None]).any(-1), -1)
            from_start = _taken(offered, rank.argmax(1))
        number = torch.full_like(images, k + 1)
        patches.append(PatchBoxes(number, images, from_images, start, from_start, size))
    return PatchBoxes.joined(patches), apart


def _are_apart(
    start: torch.Tensor, size: torch.Tensor, other: torch.Tensor, other_size: torch.Tensor
) -> torch.Tensor:
    """Whether boxes (B, N, 3) have a voxel at least between them and others (B, 3) on some axis."""
    other, other_size = other[:, None], other_size[:, None]
    return ((start > other + other_size) | (other > start + size)).any(-1)


def _taken(values: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Rows (B, 3) of (B, N, 3) at places (B,)."""
    return values[torch.arange(len(values), device=values.device), place]
