"""Stage 3: the conditional density of pooled descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.inference.models import load_features, new_density
from screener_nnu.networks.unet import shape_divisor
from screener_nnu.plans import DensitySettings, OptimiserSettings, Shape
from screener_nnu.sampling.crops import Box, resize_boxes
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.scoring.teacher import FeatureExtractor, Teacher
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.reading import (
    CaseReader,
    CropSample,
    random_start,
    read_padded,
    step_batches,
)
from screener_nnu.trainers.score_statistics import measure_scores

Scale = tuple[float, ...]

_STATISTICS_STEPS = 16
_VALIDATION_CROPS = 8


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


class DensityTrainer(ScreenerTrainer):
    """Fits q(y | c) to frozen descriptors and conditions of random crops, with random flips."""

    stage = "density"
    figure_name = "negative log-likelihood (nats)"
    higher_is_better = False

    @property
    def density(self) -> DensitySettings:
        """Settings of this stage."""
        return self.settings.density

    @property
    def optimiser_settings(self) -> OptimiserSettings:
        """Of this stage."""
        return self.density.optimiser

    @property
    def volumes_per_step(self) -> int:
        """Crops of a step."""
        return self.density.volumes_per_step

    def build_model(self) -> nn.Module:
        """The density; descriptor and condition are loaded and frozen beside it."""
        dataset = self.plans_manager.dataset_name
        self.features: FeatureExtractor = load_features(dataset, self.plan, self.density)
        self.features_identity = self.features.identity()
        self.features.to(self.device)
        self.channels = self._feature_channels()
        self.score_statistics: dict[str, float] = {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            return new_density(self.density, *self.channels)

    def _feature_channels(self) -> tuple[int, int]:
        descriptor: Any = self.features.descriptor
        return int(descriptor.decoder.seg_layers[-1].out_channels), int(
            self.features.condition.channels
        )

    def _reader(self, names: tuple[str, ...], stage: str) -> CropReader:
        preprocessing = self.settings.preprocessing
        factor = np.divide(preprocessing.storage_spacing, preprocessing.spacing)
        return CropReader(
            self.cases_folder,
            names,
            self.settings.seed,
            stage,
            self.density.crop_size,
            tuple(factor),
        )

    def training_batches(self, first_step: int) -> Iterator[list[CropSample]]:
        """Crops of this process."""
        reader = self._reader(self.settings.split.train, self.stage)
        return step_batches(
            reader, self.volumes_per_step, first_step, *self.share_of_rank(), self.settings.workers
        )

    def _features_of(
        self, sample: CropSample, flips: list[int]
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Pooled y and c of a crop, and which positions count (1, d, h, w).

        The crop is filled up with air to what the networks need, as prediction does.
        """
        step = np.lcm(shape_divisor(self.plan), self.density.pooling)
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
        inside = F.avg_pool3d(body, self.density.pooling)[:, 0] > 0.5
        if not self.density.body_only or not inside.any():
            inside = torch.ones_like(inside)
        return y, c, inside

    @torch.no_grad()
    def prepare(self) -> None:
        """Standardises y and c by training crops and initialises the density from them."""
        reader = self._reader(self.settings.split.train, f"{self.stage} statistics")
        for index in range(_STATISTICS_STEPS):
            y, c, inside = self._features_of(reader[index], [])
            selected = _select(y, inside), None if c is None else _select(c, inside)
            self.model.accumulate(*selected)
        self.model.finish_statistics()
        self.model.initialise(*selected)
        if self.is_ddp:
            for value in self.model.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def compute_loss(
        self, batch: list[CropSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean of -log q(y | c) over the positions of all crops."""
        generator = torch_generator(
            self.device, self.settings.seed, f"{self.stage} device", step, self.local_rank
        )
        losses = []
        for sample in batch:
            draws = torch.rand(3, generator=generator, device=self.device).tolist()
            flips = [axis + 2 for axis, draw in enumerate(draws) if draw < 0.5]
            losses.append(self._negative_log_likelihood(sample, flips, self.network, generator))
        return torch.cat(losses).mean(), {}

    def _negative_log_likelihood(
        self,
        sample: CropSample,
        flips: list[int],
        network: nn.Module,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        y, c, inside = self._features_of(sample, flips)
        if self.density.kind == "flow":  # looks at each position by itself
            y, c = _select(y, inside), None if c is None else _select(c, inside)
            return -network(y, c, generator=generator).flatten()
        return -network(y, c, generator=generator)[inside]

    @torch.no_grad()
    def validation_figure(self) -> float:
        """Mean NLL without noise on fixed crops of validation scans.

        It compares densities of the same descriptor; across descriptors it means nothing.
        """
        self.model.eval()
        reader = self._reader(self.settings.split.validation, f"{self.stage} validation")
        values = [
            self._negative_log_likelihood(reader[index], [], self.model).mean()
            for index in range(_VALIDATION_CROPS)
        ]
        return float(torch.stack(values).mean())

    def finish(self) -> None:
        """Measures the teacher's scores on training scans: their scale and their lowest value."""
        teacher = Teacher(self.features, self.model).eval()
        self.score_statistics = measure_scores(
            teacher, self.cases_folder, self.settings.split.train, self.plan, self.device
        )

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """Its own, and which condition it sees."""
        return settings["density"], settings["condition"]["kind"]

    def extra_state(self) -> dict[str, Any]:
        """What prediction needs beside the weights."""
        return {
            "channels": list(self.channels),
            "features": self.features_identity,
            "score_statistics": self.score_statistics,
        }


def _select(maps: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Positions that count, as a map (1, channels, n, 1, 1)."""
    return maps[0][:, inside[0]][None, :, :, None, None]
