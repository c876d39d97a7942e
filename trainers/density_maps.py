"""What a density is fitted to: pooled maps of random crops, or of whole scans, kept on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from screener_nnu.inference.map_store import MapStore
from screener_nnu.inference.volume import teacher_input
from screener_nnu.networks.unet import shape_divisor
from screener_nnu.plans import ScreenerSettings, Shape
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.sampling.crops import Box, resize_boxes
from screener_nnu.scoring.teacher import FeatureExtractor
from screener_nnu.trainers.reading import (
    CaseReader,
    CropSample,
    Pinnable,
    random_start,
    read_padded,
)
from screener_nnu.trainers.score_statistics import body_cells

Scale = tuple[float, ...]
#: y (1, d, ...), c (1, d_cond, ...) or None, and which positions count (1, ...).
Maps = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]


class MapSource(Protocol):
    """Samples of a density, and the maps of a sample."""

    def reader(
        self, names: tuple[str, ...], seed: int, stage: str, all_positions: bool = False
    ) -> CaseReader[Any]:
        """Reads samples of these cases; `all_positions`: all that a sample covers."""

    def maps(self, sample: Any, flips: list[int]) -> Maps:
        """Maps of a sample on the device; `flips` are axes of (1, 1, D, H, W) to mirror."""


class CropReader(CaseReader[CropSample]):
    """Reads crops of the plan's spacing, equalised image and body mask as two channels."""

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        seed: int,
        stage: str,
        size: Shape,
        factor: Scale,
    ) -> None:
        """Crops of at most `size` voxels of the plan; `factor` of them are one stored voxel."""
        super().__init__(folder, names, seed, stage)
        self.size = size
        self.factor = factor

    def read(self, case: str, generator: np.random.Generator) -> CropSample:
        """A crop anywhere in the case, as large as the case allows, of whole stored voxels."""
        stored = self.cases.shape(case, "equalised")
        wanted = np.rint(np.divide(self.size, self.factor)).astype(int)
        box_size = tuple(int(v) for v in np.minimum(wanted, stored))
        box = Box(random_start(generator, stored, box_size), box_size)  # type: ignore[arg-type]
        channels = [
            read_padded(self.cases, case, kind, box, 0).astype(np.float32)
            for kind in ("equalised", "body")
        ]
        start, extent, size = (_scaled(v, self.factor) for v in (box.start, stored, box.size))
        return CropSample(case, start, extent, size, torch.from_numpy(np.stack(channels)))


def _scaled(voxels: Shape, factor: Scale) -> Shape:
    return tuple(int(v) for v in np.rint(np.multiply(voxels, factor)))  # type: ignore[return-value]


class CropSource:
    """Random crops, sent through the frozen networks in every step.

    Args:
        folder: of the cases.
        features: the networks.
        plan: nnU-Net's plan dictionary.
        device: of the networks.
    """

    def __init__(
        self, folder: Path, features: FeatureExtractor, plan: dict[str, Any], device: torch.device
    ) -> None:
        """Keeps what a crop needs."""
        self.folder, self.features, self.plan, self.device = folder, features, plan, device
        self.settings = ScreenerSettings.from_dict(plan["screener"])

    def reader(
        self, names: tuple[str, ...], seed: int, stage: str, all_positions: bool = False
    ) -> CropReader:
        """See `MapSource`; crops are always whole."""
        preprocessing = self.settings.preprocessing
        factor = np.divide(preprocessing.storage_spacing, preprocessing.spacing)
        size = self.settings.density.crop_size
        return CropReader(self.folder, names, seed, stage, size, tuple(factor))

    def maps(self, sample: CropSample, flips: list[int]) -> Maps:
        """The crop is filled up with air to what the networks need, as prediction does."""
        pooling = self.settings.density.pooling
        step = np.lcm(shape_divisor(self.plan), pooling)
        padding = [int(p) for n in (-np.array(sample.size) % step)[::-1] for p in (0, n)]
        both = [channel.to(self.device, non_blocking=True) for channel in sample.image]
        image, body = (F.pad(resize_boxes([channel], sample.size), padding) for channel in both)
        if flips:
            image, body = image.flip(flips), body.flip(flips)
        place = (torch.tensor([v], device=self.device) for v in (sample.start, sample.extent))
        y, c = self.features(image, *place)
        if c is not None and not self.features.condition.trained:
            # A condition made of the place alone has to follow what was flipped.
            c = c.flip(flips)
        return y, c, F.avg_pool3d(body, pooling)[:, 0] > 0.5


@dataclass(frozen=True)
class ScanSample(Pinnable):
    """Maps of a whole scan; y (1, d, ...), c (1, d_cond, ...) or None, inside (1, ...)."""

    y: torch.Tensor
    c: torch.Tensor | None
    inside: torch.Tensor


class ScanReader(CaseReader[ScanSample]):
    """Reads scans from a store; one that is not there yet is made."""

    def __init__(
        self,
        folder: Path,
        names: tuple[str, ...],
        seed: int,
        stage: str,
        store: MapStore,
        positions: int,
        scattered: bool,
    ) -> None:
        """Maps come from `store`.

        Args:
            folder, names, seed, stage: see `CaseReader`.
            store: of the maps.
            positions: of the body in a sample; 0 for the whole scan.
            scattered: draw them one by one, (1, channels, positions, 1, 1); else a block.
        """
        super().__init__(folder, names, seed, stage)
        self.store, self.positions, self.scattered = store, positions, scattered
        self._bodies: dict[str, tuple[np.ndarray, Shape]] = {}

    def read(self, case: str, generator: np.random.Generator) -> ScanSample:
        """The whole case, or positions of it; all of a case with fewer of them."""
        y, c = stored_maps(self.store, self.cases, case)
        inside = self._inside(case, tuple(y.shape[2:]))  # type: ignore[arg-type]
        found = np.flatnonzero(inside)
        if not 0 < self.positions < len(found):
            return ScanSample(y, c, torch.from_numpy(inside)[None])
        if self.scattered:
            drawn = generator.choice(found, self.positions, replace=False)
            every = torch.ones(1, self.positions, 1, 1, dtype=torch.bool)
            return ScanSample(
                _positions(y, drawn), None if c is None else _positions(c, drawn), every
            )
        centre = np.unravel_index(generator.choice(found), inside.shape)
        block = _block(centre, inside.shape, self.positions)  # type: ignore[arg-type]
        every_channel = (slice(None), slice(None), *block)
        return ScanSample(
            y[every_channel].clone(),
            None if c is None else c[every_channel].clone(),
            torch.from_numpy(inside[block])[None],
        )

    def _inside(self, case: str, cells: Shape) -> np.ndarray:
        """Positions more than half of which lie in the body; kept, a bit each."""
        if case not in self._bodies:
            grid = self.cases.shape(case, "hu")
            body = torch.from_numpy(self.cases.read(case, "body"))
            inside = body_cells(body, grid, self.store.features.pooling, cells) > 0.5
            self._bodies[case] = np.packbits(inside.numpy()), cells
        bits, cells = self._bodies[case]
        return np.unpackbits(bits, count=int(np.prod(cells))).astype(bool).reshape(cells)


def _positions(maps: torch.Tensor, places: np.ndarray) -> torch.Tensor:
    return maps.flatten(2)[:, :, torch.from_numpy(places)][..., None, None]


def _block(centre: tuple[int, ...], cells: Shape, positions: int) -> tuple[slice, ...]:
    """A cube of about twice as many cells, for about half of them lie in the body."""
    edge = max(3, round((2 * positions) ** (1 / 3)))
    size = np.minimum(edge, cells)
    start = np.clip(np.subtract(centre, size // 2), 0, np.subtract(cells, size))
    return tuple(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))


def stored_maps(
    store: MapStore, cases: CaseFolder, case: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Maps of a case from the store."""

    def image() -> torch.Tensor:
        equalised = torch.from_numpy(cases.read(case, "equalised"))
        return teacher_input(equalised, cases.shape(case, "hu"))

    return store.maps(case, image)


class ScanSource:
    """Whole scans whose maps are kept on disk, for scans that fit in a tile or two.

    The networks run once a scan instead of once a step; nothing is mirrored.

    Args:
        folder: of the cases.
        store: of their maps.
        positions, scattered: of the samples of training, see `ScanReader`.
    """

    def __init__(self, folder: Path, store: MapStore, positions: int, scattered: bool) -> None:
        """Keeps where to read."""
        self.folder, self.store = folder, store
        self.positions, self.scattered = positions, scattered

    def fill(self, names: Iterable[str]) -> None:
        """Makes all maps before the first step; those on disk stay."""
        cases = CaseFolder(self.folder)
        for case in tqdm(list(names), desc="maps", unit="scan"):
            stored_maps(self.store, cases, case)

    def reader(
        self, names: tuple[str, ...], seed: int, stage: str, all_positions: bool = False
    ) -> ScanReader:
        """See `MapSource`."""
        positions = 0 if all_positions else self.positions
        return ScanReader(self.folder, names, seed, stage, self.store, positions, self.scattered)

    def maps(self, sample: ScanSample, flips: list[int]) -> Maps:
        """As they were stored."""
        device = self.store.device
        c = None if sample.c is None else sample.c.to(device, non_blocking=True)
        y = sample.y.to(device, non_blocking=True)
        return y, c, sample.inside.to(device, non_blocking=True)
