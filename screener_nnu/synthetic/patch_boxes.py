"""Where patches are taken from and where they go: boxes that lie apart from each other.

Boxes are drawn and compared on the device of the images, all images of a batch at once: every
candidate is drawn in advance, and the first suitable one is taken.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from enum import Enum

import torch

from screener_nnu.devices import small_tensor
from screener_nnu.errors import ScreenerError
from screener_nnu.pretext_settings import MedMixSettings
from screener_nnu.sampling.body_shares import BodyShares
from screener_nnu.sampling.colours import between

# Places that are tried with a size, sizes that are drawn for a patch, and how often the patches of
# an image are drawn anew.
_PLACES, _SIZES, _DRAWS = 20, 5, 20


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
        image, source_image: of the batch: that a patch goes into, and that it is taken from (P,).
        source_start, start: first voxel of what is taken, and of where it goes (P, 3).
        size: edges in voxels (P, 3).
    """

    number: torch.Tensor
    image: torch.Tensor
    source_image: torch.Tensor
    source_start: torch.Tensor
    start: torch.Tensor
    size: torch.Tensor

    @classmethod
    def joined(cls, parts: list[PatchBoxes]) -> PatchBoxes:
        """The patches of several."""
        names = [f.name for f in fields(cls)]
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def where(self, kept: torch.Tensor, others: PatchBoxes) -> PatchBoxes:
        """The patches of some images (B,), and those of others for the rest."""
        rows = kept[self.image]
        pairs = ((f.name, getattr(self, f.name), getattr(others, f.name)) for f in fields(self))
        return PatchBoxes(
            **{n: torch.where(rows if a.ndim == 1 else rows[:, None], a, b) for n, a, b in pairs}
        )


def draw_boxes(
    shape: torch.Size,
    count: int,
    source: Source,
    generator: torch.Generator,
    settings: MedMixSettings,
    bodies: torch.Tensor | None = None,
) -> tuple[PatchBoxes, int]:
    """Draws so many patches for each image of a batch.

    Patches of one image are apart by a voxel at least. 20 places are tried with a size, then
    another size is drawn; after five sizes all patches of the image are drawn anew, and the largest
    size is lowered step by step. Where no place that is apart lies in the body as much as it
    should, the one that does so most is taken.

    Args:
        shape: of the images, (B, C, D, H, W).
        count: patches of an image.
        source: where they are taken from.
        generator: on the device of the images.
        settings: sizes, and the least part in the body.
        bodies: masks (B, D, H, W); without them all is body.

    Returns:
        The boxes, and the voxels of all of them together.

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
    shares = BodyShares(bodies)
    boxes = fits = None
    for draw in range(_DRAWS):
        largest = 1 - draw / _DRAWS
        candidates = _Candidates.draw(batch, count, extent, largest, generator, settings)
        drawn, apart = _Choice(candidates, source, shares, settings.least_body).patches()
        if boxes is not None and fits is not None:
            drawn, apart = boxes.where(fits, drawn), fits | apart
        boxes, fits = drawn, apart
        # The one time that the processor waits for the device.
        voxels, complete = torch.stack([boxes.size.prod(1).sum(), fits.all().long()]).tolist()
        if complete:
            return boxes, voxels
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
        largest: float,
        generator: torch.Generator,
        settings: MedMixSettings,
    ) -> _Candidates:
        def random(*shape: int) -> torch.Tensor:
            return torch.rand(batch, count, *shape, generator=generator, device=generator.device)

        voxels = small_tensor(extent, generator.device)
        size = _sizes(random(_SIZES, 3), extent, largest, settings).round().long()
        size = size.clamp_min(2).minimum(voxels)[:, :, :, None].expand(-1, -1, -1, _PLACES, -1)
        start = _starts(random(_SIZES, _PLACES, 3), size, voxels)
        step = 1 + (random() * (batch - 1)).long().clamp(max=max(batch - 2, 0))
        return cls(size.flatten(2, 3), start.flatten(2, 3), step, random(_PLACES, 3), voxels)


def _sizes(
    numbers: torch.Tensor, extent: tuple[int, ...], largest: float, settings: MedMixSettings
) -> torch.Tensor:
    """Edges in voxels, not rounded, of uniform numbers (..., 3).

    `largest` is where the largest size lies, from 0, the smallest one, to 1.
    """
    depth, height, width = extent
    if depth > 1:
        return between(largest * numbers, settings.edge) * small_tensor(extent, numbers.device)
    pixels = between(largest * numbers[..., 0], settings.area) * height * width
    aspect = torch.exp((2 * numbers[..., 1] - 1) * math.log(settings.aspect))
    # A patch that would be longer than the picture keeps its area, not its aspect.
    rows = (pixels * aspect).sqrt().maximum(pixels / width).clamp(max=height)
    return torch.stack([torch.ones_like(rows), rows, pixels / rows], dim=-1)


def _starts(numbers: torch.Tensor, size: torch.Tensor, extent: torch.Tensor) -> torch.Tensor:
    """First voxels of boxes that lie in the image, from uniform numbers."""
    free = extent - size
    return (numbers * (free + 1)).long().minimum(free)


@dataclass(frozen=True)
class _Choice:
    """Takes the first suitable candidates.

    Attributes:
        candidates: to choose from.
        source: where patches are taken from.
        shares: of boxes in the bodies.
        least: share of a patch that should lie in a body.
    """

    candidates: _Candidates
    source: Source
    shares: BodyShares
    least: float

    def patches(self) -> tuple[PatchBoxes, torch.Tensor]:
        """Those of all images, and of which images (B,) all lie apart."""
        batch, count = self.candidates.step.shape
        images = torch.arange(batch, device=self.candidates.step.device)
        apart = torch.ones_like(images, dtype=torch.bool)
        patches: list[PatchBoxes] = []
        for k in range(count):
            start, size = self.candidates.start[:, k], self.candidates.size[:, k]
            rank = self.shares.of(images, start, size).clamp(max=self.least)
            for other in patches:
                rank = rank.where(_are_apart(start, size, other.start, other.size), -1)
            best, place = rank.max(1)  # the first one of those that are equally good
            apart = apart & (best >= 0)
            start, size = _taken(start, place), _taken(size, place)
            origin = self._origin(k, images, start, size)
            patches.append(PatchBoxes(torch.full_like(images, k + 1), images, *origin, start, size))
        return PatchBoxes.joined(patches), apart

    def _origin(
        self, k: int, images: torch.Tensor, start: torch.Tensor, size: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image (B,) and first voxel (B, 3) that patch `k` is taken from."""
        if self.source is not Source.OWN:
            images = (images + self.candidates.step[:, k]) % len(images)
        if self.source is Source.OTHER_SAME_PLACE:
            return images, start
        size = size[:, None]
        offered = _starts(self.candidates.source[:, k], size, self.candidates.extent)
        rank = self.shares.of(images, offered, size).clamp(max=self.least)
        if self.source is Source.OWN:
            rank = rank.where((offered != start[:, None]).any(-1), -1)
        return images, _taken(offered, rank.argmax(1))


def _are_apart(
    start: torch.Tensor, size: torch.Tensor, other: torch.Tensor, other_size: torch.Tensor
) -> torch.Tensor:
    """Whether boxes (B, N, 3) have a voxel at least between them and others (B, 3) on some axis."""
    other, other_size = other[:, None], other_size[:, None]
    return ((start > other + other_size) | (other > start + size)).any(-1)


def _taken(values: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """Rows (B, 3) of (B, N, 3) at places (B,)."""
    return values[torch.arange(len(values), device=values.device), place]
