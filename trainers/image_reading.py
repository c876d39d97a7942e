"""Images of one size, whole pictures or crops of scans, for stages that learn of images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from screener_nnu.plans import Shape
from screener_nnu.sampling.crops import Box
from screener_nnu.trainers.reading import CaseReader, Pinnable, random_start, read_padded

# A box is drawn anew, so often at most, where less than this part of it lies in the body.
_LEAST_BODY, _MAX_DRAWS = 0.5, 20


@dataclass(frozen=True)
class ImageSample(Pinnable):
    """A box of the equalised image (D, H, W), or (C, D, H, W) in colour, and its body mask."""

    image: torch.Tensor
    body: torch.Tensor


class ImageReader(CaseReader[ImageSample]):
    """Reads boxes of one size, in stored voxels; a smaller case begins its box, and 0 follows."""

    def __init__(
        self, folder: Path, names: tuple[str, ...], seed: int, stage: str, size: Shape
    ) -> None:
        """See `CaseReader`."""
        super().__init__(folder, names, seed, stage)
        self.size = size

    def read(self, case: str, generator: np.random.Generator) -> ImageSample:
        """A box half of which lies in the body, or of 20 draws the one with the most of it."""
        extent = self.cases.shape(case, "equalised")
        most, chosen = -1.0, None
        for _ in range(_MAX_DRAWS):
            box = Box(random_start(generator, extent, self.size), self.size)
            body = read_padded(self.cases, case, "body", box, 0)
            share = float((body > 0).mean())
            if share > most:
                most, chosen = share, (box, body)
            if share >= _LEAST_BODY or all(n <= m for n, m in zip(extent, self.size, strict=True)):
                break
        assert chosen is not None  # there is always a draw
        image = read_padded(self.cases, case, "equalised", chosen[0], 0)
        return ImageSample(torch.from_numpy(image), torch.from_numpy(chosen[1]))
