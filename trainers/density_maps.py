"""What a density is fitted to, and one kind of it: pooled maps of random crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from screener_nnu.plans import Plan, Shape
from screener_nnu.sampling.crops import Box, resize_boxes
from screener_nnu.scoring.teacher import FeatureExtractor
from screener_nnu.trainers.reading import (
    CaseReader,
    CropSample,
    random_start,
    read_padded,
)
from screener_nnu.trainers.score_statistics import require_finite

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
    """Reads crops of the plan's spacing, equalised image and body mask as channels."""

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
        image, body = (
            read_padded(self.cases, case, kind, box, 0).astype(np.float32)
            for kind in ("equalised", "body")
        )
        channels = [*(image if image.ndim == 4 else [image]), body]
        start, extent, size = (_scaled(v, self.factor) for v in (box.start, stored, box.size))
        return CropSample(case, start, extent, size, torch.from_numpy(np.stack(channels)))


def _scaled(voxels: Shape, factor: Scale) -> Shape:
    return tuple(int(v) for v in np.rint(np.multiply(voxels, factor)))  # type: ignore[return-value]


class CropSource:
    """Random crops, sent through the frozen networks in every step.

    Args:
        folder: of the cases.
        features: the networks.
        plan: for crops, pooling and strides.
        device: of the networks.
    """

    def __init__(
        self, folder: Path, features: FeatureExtractor, plan: Plan, device: torch.device
    ) -> None:
        """Keeps what a crop needs."""
        self.folder, self.features, self.plan, self.device = folder, features, plan, device
        self.settings = plan.settings

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
        step = np.lcm(self.features.divisor(self.plan.divisor), pooling)
        padding = [int(p) for n in (-np.array(sample.size) % step)[::-1] for p in (0, n)]
        stored = sample.image.to(self.device, non_blocking=True)
        image, body = (
            F.pad(resize_boxes([channels], sample.size), padding)
            for channels in (stored[:-1], stored[-1])
        )
        if flips:
            image, body = image.flip(flips), body.flip(flips)
        place = (torch.tensor([v], device=self.device) for v in (sample.start, sample.extent))
        y, c = self.features(image, *place)
        require_finite(f"descriptor or condition maps of {sample.case}", y, c)
        if c is not None and not self.features.condition.trained:
            # A condition made of the place alone has to follow what was flipped.
            c = c.flip(flips)
        return y, c, F.avg_pool3d(body, pooling)[:, 0] > 0.5
