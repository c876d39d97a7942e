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

    def reader(self, names: tuple[str, ...], seed: int, stage: str) -> CaseReader[Any]:
        """Reads samples of these cases."""

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

    def reader(self, names: tuple[str, ...], seed: int, stage: str) -> CropReader:
        """See `MapSource`."""
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
    """Reads whole scans from a store; one that is not there yet is made."""

    def __init__(
        self, folder: Path, names: tuple[str, ...], seed: int, stage: str, store: MapStore
    ) -> None:
        """Maps come from `store`."""
        super().__init__(folder, names, seed, stage)
        self.store = store

    def read(self, case: str, generator: np.random.Generator) -> ScanSample:
        """The whole case."""
        y, c = stored_maps(self.store, self.cases, case)
        grid, cells = self.cases.shape(case, "hu"), tuple(y.shape[2:])
        body = torch.from_numpy(self.cases.read(case, "body"))
        inside = body_cells(body, grid, self.store.features.pooling, cells) > 0.5  # type: ignore[arg-type]
        return ScanSample(y, c, inside[None])


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
    """

    def __init__(self, folder: Path, store: MapStore) -> None:
        """Cases of `folder`, maps of `store`."""
        self.folder, self.store = folder, store

    def fill(self, names: Iterable[str]) -> None:
        """Makes all maps before the first step; those on disk stay."""
        cases = CaseFolder(self.folder)
        for case in tqdm(list(names), desc="maps", unit="scan"):
            stored_maps(self.store, cases, case)

    def reader(self, names: tuple[str, ...], seed: int, stage: str) -> ScanReader:
        """See `MapSource`."""
        return ScanReader(self.folder, names, seed, stage, self.store)

    def maps(self, sample: ScanSample, flips: list[int]) -> Maps:
        """As they were stored."""
        device = self.store.device
        c = None if sample.c is None else sample.c.to(device, non_blocking=True)
        y = sample.y.to(device, non_blocking=True)
        return y, c, sample.inside.to(device, non_blocking=True)
