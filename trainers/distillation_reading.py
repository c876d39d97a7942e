"""What the distillation stage reads: HU crops, and the teacher's maps on the cells around them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from screener_nnu.errors import CaseError
from screener_nnu.inference.map_store import MapFiles
from screener_nnu.plans import Shape
from screener_nnu.sampling.crops import Box
from screener_nnu.trainers.reading import (
    CaseReader,
    Pinnable,
    random_start,
    read_body,
    read_padded,
)


@dataclass(frozen=True)
class TargetFiles:
    """Where the teacher's maps lie.

    Attributes:
        scores: folder of `<case>.npy`, float32 scores (d, h, w) in nats on the teacher's cells.
        cell: voxels per axis of a cell.
        maps: pooled descriptors of the same scans; None where only the score is a target.
    """

    scores: Path
    cell: Shape
    maps: MapFiles | None = None


@dataclass(frozen=True)
class DistillationSample(Pinnable):
    """A crop and what the teacher says about it.

    Attributes:
        hu, body: HU and body mask of the crop.
        cells: scores of all cells of the case, in nats; empty without a teacher.
        start: first voxel of the crop.
        y: descriptors (d, ...) of the cells around the crop; empty where they are no target.
        y_start: first voxel of those cells.
    """

    hu: torch.Tensor
    body: torch.Tensor
    cells: torch.Tensor
    start: Shape
    y: torch.Tensor
    y_start: Shape


class DistillationReader(CaseReader[DistillationSample]):
    """Reads crops anywhere in the cases."""

    def __init__(
        self,
        folder: Path,
        targets: TargetFiles | None,
        names: tuple[str, ...],
        seed: int,
        stage: str,
        crop_size: Shape,
        beyond: float,
    ) -> None:
        """See `CaseReader`; a crop has `crop_size` voxels, without targets no teacher's maps.

        `beyond` is the value of voxels beyond the border of a case.
        """
        super().__init__(folder, names, seed, stage)
        self.targets = targets
        self.crop_size = crop_size
        self.beyond = beyond

    def read(self, case: str, generator: np.random.Generator) -> DistillationSample:
        """A crop anywhere in the case."""
        extent = self.cases.shape(case, "hu")
        box = Box(random_start(generator, extent, self.crop_size), self.crop_size)
        hu = read_padded(self.cases, case, "hu", box, self.beyond)
        return DistillationSample(
            torch.from_numpy(hu),
            torch.from_numpy(read_body(self.cases, case, box, extent)),
            self._scores(case),
            box.start,
            *self._descriptors(case, box),
        )

    def _scores(self, case: str) -> torch.Tensor:
        if self.targets is None:
            return torch.empty(0)
        try:
            return torch.from_numpy(np.load(self.targets.scores / f"{case}.npy"))
        except (OSError, ValueError) as error:
            raise CaseError(case, f"its teacher scores cannot be read ({error})") from error

    def _descriptors(self, case: str, box: Box) -> tuple[torch.Tensor, Shape]:
        """Of the cells that a crop touches, and one more on each side to interpolate with."""
        if self.targets is None or self.targets.maps is None:
            return torch.empty(0), box.start
        y = self.targets.maps.read(case)[0][0]
        cell = self.targets.cell
        first = [max(0, a // c - 1) for a, c in zip(box.start, cell, strict=True)]
        last = [-(-b // c) + 1 for b, c in zip(box.stop, cell, strict=True)]
        window = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        start = tuple(a * c for a, c in zip(first, cell, strict=True))
        return y[(slice(None), *window)].clone(), start  # type: ignore[return-value]
