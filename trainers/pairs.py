"""What the stages on crop pairs have in common: pairs are read, resized and jittered alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from screener_nnu.plans import ContrastSettings, OptimiserSettings, PositionSettings
from screener_nnu.sampling.crops import Box, resize_boxes, voxels_per_crop
from screener_nnu.sampling.jitter import colour_jitter
from screener_nnu.sampling.orientation import resize_oriented
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.reading import PairReader, PairSample


class PairTrainer(ScreenerTrainer):
    """A stage on two crops of one scan; subclasses say what is learned from them."""

    reads_both_bodies: ClassVar[bool] = False

    @property
    def pairs(self) -> ContrastSettings | PositionSettings:
        """Settings of this stage."""
        raise NotImplementedError

    @property
    def optimiser_settings(self) -> OptimiserSettings:
        """Of this stage."""
        return self.pairs.optimiser

    @property
    def volumes_per_step(self) -> int:
        """Pairs of crops of a step."""
        return self.pairs.volumes_per_step

    @property
    def draws(self) -> int:
        """Pairs that are drawn for one to train on, see `ContrastSettings.pair_draws`."""
        return 1

    def _reader(self, names: tuple[str, ...], stage: str, draws: int = 1) -> PairReader:
        preprocessing = self.settings.preprocessing
        covered = voxels_per_crop(
            self.settings.crop_size, preprocessing.spacing, preprocessing.storage_spacing
        )
        return PairReader(
            self.cases_folder,
            names,
            self.settings.seed,
            stage,
            covered,
            self.pairs.scale_range,
            self.pairs.min_overlap,
            self.reads_both_bodies,
            draws,
        )

    def training_batches(self, first_step: int) -> Iterator[list[PairSample]]:
        """Crop pairs of this process."""
        reader = self._reader(self.settings.split.train, self.stage, self.draws)
        return self.batches(reader, first_step)

    def resized(
        self, batch: list[PairSample], orientations: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Crops (2B, C, D, H, W) on the device, first views before second ones.

        Args:
            batch: B samples.
            orientations: (2B, 3, 3) of the crops; without them all are upright.
        """
        stored = [s.images[view] for view in (0, 1) for s in batch]
        moved = [image.to(self.device, non_blocking=True) for image in stored]
        size = self.settings.crop_size
        if orientations is None:
            return resize_boxes(moved, size)
        spacing = self.settings.preprocessing.storage_spacing
        return resize_oriented(moved, size, orientations, spacing)

    def jittered(
        self, images: torch.Tensor, boxes: list[Box], generator: torch.Generator
    ) -> torch.Tensor:
        """Colour augmentation of resized boxes, with lengths in mm."""
        # In-plane spacing of each crop: what the blur's millimetres are measured in.
        storage, size = self.settings.preprocessing.storage_spacing, self.settings.crop_size
        spacing = [[b.size[a] * storage[a] / size[a] for a in (1, 2)] for b in boxes]
        return colour_jitter(
            images, torch.tensor(spacing, device=self.device), self.settings.jitter, generator
        )


def boxes_of(batch: list[PairSample]) -> list[Box]:
    """Boxes of all crops, first views before second ones."""
    return [s.boxes[view] for view in (0, 1) for s in batch]
