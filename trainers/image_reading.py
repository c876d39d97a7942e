"""What image-level pre-training reads: whole pictures, crops of scans, or pairs of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from screener_nnu.descriptors.base import EQUALISED, ImageKind, beyond
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import Plan, Shape
from screener_nnu.sampling.crops import Box, resize_boxes, voxels_per_crop
from screener_nnu.sampling.neighbours import draw_neighbours
from screener_nnu.trainers.reading import (
    CaseReader,
    Pinnable,
    random_start,
    read_body,
    read_padded,
)

# Part of a crop that is to lie in the body: air alone has nothing to learn from.
_LEAST_BODY = 0.25
_TRIES = 20


@dataclass(frozen=True)
class ImageSample(Pinnable):
    """An image, and the patch beside it where there is one.

    Attributes:
        image, body: image (D, H, W), in colour (C, D, H, W), and body mask (D, H, W), of stored
            voxels.
        neighbour: another patch of the same case; empty for a global model.
        direction: where it lies, a place in the tables of `sampling.neighbours`; -1 without.
    """

    image: torch.Tensor
    body: torch.Tensor
    neighbour: torch.Tensor
    direction: int = -1


def image_reader(
    plan: Plan,
    folder: Path,
    names: Sequence[str],
    stage: str,
    size: Shape,
    pairs: bool = False,
    reads: ImageKind = EQUALISED,
) -> ImageReader:
    """Reads images that cover `size` voxels of the plan's grid; see `ImageReader` for the rest."""
    grid = plan.settings.preprocessing
    if reads == EQUALISED:
        stored = voxels_per_crop(size, grid.spacing, grid.storage_spacing)
        z, y, x = (max(1, round(n)) for n in stored)
        size = (z, y, x)
    air = beyond(reads, plan)
    return ImageReader(folder, tuple(names), plan.settings.seed, stage, size, pairs, reads, air)


def on_grid(
    samples: Sequence[ImageSample], size: Shape, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (B, C, *size) of samples on a device, and their body masks (B, 1, *size)."""
    images = [s.image.to(device, non_blocking=True) for s in samples]
    bodies = [s.body.to(device, non_blocking=True) for s in samples]
    return resize_boxes(images, size), resize_boxes(bodies, size) > 0.5


class ImageReader(CaseReader[ImageSample]):
    """Reads boxes of one size; up to 20 are tried until a quarter of one lies in the body.

    Args:
        folder, names, seed, stage: see `CaseReader`.
        size: of a box in stored voxels.
        pairs: whether a second box beside it is read, as large.
        reads: which image of a case.
        air: value of voxels beyond the border of a case.
    """

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        seed: int,
        stage: str,
        size: Shape,
        pairs: bool = False,
        reads: ImageKind = EQUALISED,
        air: float = 0.0,
    ) -> None:
        """Keeps the size."""
        super().__init__(folder, names, seed, stage)
        self.size = size
        self.pairs = pairs
        self.reads, self.air = reads, air

    def read(self, case: str, generator: np.random.Generator) -> ImageSample:
        """An image of a case.

        Raises:
            CaseError: the case cannot be read, or no body was found in it.
        """
        extent = self.cases.shape(case, self.reads)
        try:
            drawn, body = self._draw(extent, generator), None
        except ScreenerError as error:  # no room for two patches
            raise CaseError(case, str(error)) from error
        for _ in range(_TRIES):
            found = read_body(self.cases, case, drawn[0], extent)
            if body is None or found.mean() > body.mean():
                body, (box, second, direction) = found, drawn
            if body.mean() >= _LEAST_BODY or np.all(np.greater_equal(self.size, extent)):
                break
            drawn = self._draw(extent, generator)
        if body is None or not body.any():
            raise CaseError(
                case, f"{_TRIES} crops of it hold no body: plan without it, or with larger crops"
            )
        neighbour = torch.empty(0)
        if second is not None:
            neighbour = self._image(case, second)
        return ImageSample(self._image(case, box), torch.from_numpy(body), neighbour, direction)

    def _image(self, case: str, box: Box) -> torch.Tensor:
        return torch.from_numpy(read_padded(self.cases, case, self.reads, box, self.air))

    def _draw(self, extent: Shape, generator: np.random.Generator) -> tuple[Box, Box | None, int]:
        if not self.pairs:
            return Box(random_start(generator, extent, self.size), self.size), None, -1
        first, second, direction = draw_neighbours(generator, extent, self.size)
        return Box(first, self.size), Box(second, self.size), direction
