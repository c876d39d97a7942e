"""What worker processes do: read boxes of cases, nothing else."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from torch.utils.data import Dataset

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import Range, Shape
from screener_nnu.preprocessing.case_files import CaseFolder, Kind
from screener_nnu.preprocessing.resampling import nearest
from screener_nnu.sampling.crops import Box, draw_pair, intersect
from screener_nnu.sampling.randomness import numpy_generator, shuffled_index

logger = logging.getLogger(__name__)
Sample = TypeVar("Sample")

_MIN_SHARED_BODY = 32
_MAX_PAIRS = 20


def read_padded(cases: CaseFolder, case: str, kind: Kind, box: Box, fill: float) -> np.ndarray:
    """A box of a stored image; what lies outside the volume is `fill`."""
    inside = intersect(box, Box((0, 0, 0), cases.shape(case, kind)))
    values = cases.read_box(case, kind, inside.start, inside.stop)
    return _padded(values, inside, box, fill)


def read_body(cases: CaseFolder, case: str, box: Box, extent: Shape) -> np.ndarray:
    """A box of the body mask, uint8, 0 outside the volume.

    Args:
        cases: folder of the case.
        case: name.
        box: in voxels of a grid over the volume, which need not be that of the mask.
        extent: voxels of that grid.
    """
    stored = cases.shape(case, "body")
    if stored == extent:
        return read_padded(cases, case, "body", box, 0)
    inside = intersect(box, Box((0, 0, 0), extent))
    axes = zip(stored, extent, inside.start, inside.stop, strict=True)
    picked = [nearest(size, target)[first:stop] for size, target, first, stop in axes]
    z, y, x = (int(one[0]) for one in picked)
    last = tuple(int(one[-1]) + 1 for one in picked)
    values = cases.read_box(case, "body", (z, y, x), last)  # type: ignore[arg-type]
    values = values[np.ix_(*(one - one[0] for one in picked))]
    return _padded(values, inside, box, 0)


def _padded(values: np.ndarray, inside: Box, box: Box, fill: float) -> np.ndarray:
    """A box of which `values` are the part inside the volume."""
    sides = np.subtract([box.start, box.stop], inside.start).T.tolist()
    return crop_and_pad_nd(values, sides, fill)


class CaseReader(Dataset[Sample], Generic[Sample]):
    """Sample `index` of a stage: a function of (seed, stage, index) and the cases alone.

    A case that turns out to be unreadable is reported and another one takes its place.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], seed: int, stage: str) -> None:
        """Keeps where to read; files are opened by the process that reads."""
        self.folder = folder
        self.names = names
        self.seed = seed
        self.stage = stage
        self._cases: CaseFolder | None = None

    @property
    def cases(self) -> CaseFolder:
        """The folder, opened in this process."""
        if self._cases is None:
            self._cases = CaseFolder(self.folder)
        return self._cases

    def __getitem__(self, index: int) -> Sample:
        """Reads sample `index`; any number is valid."""
        generator = numpy_generator(self.seed, self.stage, index)
        first = shuffled_index(len(self.names), self.seed, self.stage, index)
        for attempt in range(len(self.names)):
            name = self.names[(first + attempt) % len(self.names)]
            try:
                return self.read(name, generator)
            except CaseError as error:
                logger.warning("left out: %s", error)
        raise ScreenerError(f"no case in {self.folder} can be used: see the warnings")

    def read(self, case: str, generator: np.random.Generator) -> Sample:
        """Draws and reads one sample of a case."""
        raise NotImplementedError


class Pinnable:
    """Lets the loader keep tensors in pinned memory, from where copies are asynchronous."""

    def pin_memory(self) -> Any:
        """The same sample in pinned memory."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **{name: _pinned(value) for name, value in values.items()})  # type: ignore[type-var]


def _pinned(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, tuple) and any(isinstance(v, torch.Tensor) for v in value):
        return tuple(_pinned(v) for v in value)
    return value


@dataclass(frozen=True)
class PairSample(Pinnable):
    """Two boxes of the equalised image and the body mask of the first, or of both."""

    boxes: tuple[Box, Box]
    images: tuple[torch.Tensor, torch.Tensor]
    body: torch.Tensor
    second_body: torch.Tensor | None = None


class PairReader(CaseReader[PairSample]):
    """Reads the crop pairs of the self-supervised stages."""

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        seed: int,
        stage: str,
        voxels_per_crop: tuple[float, float, float],
        scale_range: Range,
        min_overlap: float,
        both_bodies: bool = False,
        draws: int = 1,
    ) -> None:
        """See `draw_pair` for geometry.

        With `both_bodies`, the mask of the second box is read, too. Of `draws` pairs, the one that
        shares most body is read.
        """
        super().__init__(folder, names, seed, stage)
        self.geometry = (voxels_per_crop, scale_range, min_overlap)
        self.both_bodies, self.draws = both_bodies, draws

    def read(self, case: str, generator: np.random.Generator) -> PairSample:
        """Draws pairs until some share body, and reads one.

        Raises:
            CaseError: the case cannot be read, or has so little body that no pair was found.
        """
        first, second, body = self._pair(case, generator)
        images = [
            torch.from_numpy(read_padded(self.cases, case, "equalised", box, 0))
            for box in (first, second)
        ]
        other = None
        if self.both_bodies:
            other = torch.from_numpy(read_padded(self.cases, case, "body", second, 0))
        return PairSample((first, second), (images[0], images[1]), torch.from_numpy(body), other)

    def _pair(self, case: str, generator: np.random.Generator) -> tuple[Box, Box, np.ndarray]:
        """Two boxes, and the body mask of the first one."""
        shape = self.cases.shape(case, "equalised")
        tries = max(_MAX_PAIRS, self.draws)
        found, most, best = 0, _MIN_SHARED_BODY - 1, None
        for _ in range(tries):
            first, second = draw_pair(generator, shape, *self.geometry)
            body = read_padded(self.cases, case, "body", first, 0)
            shared = intersect(first, second)
            local = np.subtract(shared.start, first.start)
            window = tuple(slice(o, o + n) for o, n in zip(local, shared.size, strict=True))
            voxels = int(body[window].sum())
            found += voxels >= _MIN_SHARED_BODY
            if voxels > most:
                most, best = voxels, (first, second, body)
            if found == self.draws:
                break
        if best is None:
            raise CaseError(
                case,
                f"{tries} pairs of crops share less than {_MIN_SHARED_BODY} voxels of its "
                "body: plan without it, or with smaller crops",
            )
        return best


@dataclass(frozen=True)
class CropSample(Pinnable):
    """A crop and its place, in voxels of the plan's grid: start, extent of the case, size."""

    case: str
    start: Shape
    extent: Shape
    size: Shape
    image: torch.Tensor


def random_start(generator: np.random.Generator, extent: Shape, size: Shape) -> Shape:
    """Uniform start of a crop; where the case is smaller than the crop, the case starts it."""
    free = np.maximum(0, np.subtract(extent, size))
    return tuple(int(v) for v in generator.integers(0, free + 1))  # type: ignore[return-value]
