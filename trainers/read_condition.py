"""A student that learns to read its teacher's condition off the maps of their descriptor."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.densities.standardised import as_map
from screener_nnu.descriptors.student_features import StudentFeatures
from screener_nnu.detectors import TEACHER, ModelRef
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.inference.reading_student import teacher_entry
from screener_nnu.networks.levels import levels_of
from screener_nnu.networks.probed import LevelPerceptron
from screener_nnu.scoring.reading_student import condition_of
from screener_nnu.scoring.teacher import FeatureExtractor
from screener_nnu.stage_checkpoint import DENSITY, HEAD, OF_TEACHER
from screener_nnu.trainers.condition_rows import (
    KEPT_POSITIONS,
    RowReader,
    RowSample,
    RowStore,
    positions_in_body,
)
from screener_nnu.trainers.density_maps import CropSource
from screener_nnu.trainers.lesson import Lesson, correlation

_VALIDATION_CROPS, _POSITIONS = 12, 2000


class ConditionLesson(Lesson):
    """Regresses the standardised condition at the positions of crops (mean squared error).

    What a UNet that regresses the score lacks is mainly the condition: its crop does not say where
    it lies, and few steps do not teach what takes a network of its own. Descriptor and density are
    there already. So a student keeps both, and a head on all stages of the descriptor, and on its
    filters where it has some, learns the rest, at positions of many scans in every step. The
    networks see a crop of each scan, once; it is one of the density, as large as a tile of a
    prediction in the presets, for instance normalisation then sees the same.
    """

    def build(self) -> nn.Module:
        """The head; the teacher is loaded beside it."""
        self._refuse_targets()
        model = ModelRef(self.plan.dataset, self.trainer.teacher_plans, TEACHER)
        self.teacher, self.teacher_plan, self.score_statistics = model.load(self.device)
        extractor = self.teacher.features
        if not extractor.condition.channels:
            raise ScreenerError(
                f"the teacher of {self.trainer.teacher_plans} has no condition for a student to "
                "read: set distillation.learns=score"
            )
        if self.teacher_plan.architecture != self.plan.architecture:
            raise ScreenerError(
                f"the teacher of {self.trainer.teacher_plans} has another network than the plan "
                f"{self.plan.name}: train its student under a plan that is derived from its own"
            )
        self.features = StudentFeatures.of_descriptor(extractor.descriptor).to(self.device)
        self.features.standardise_filters(self.teacher.density.y_mean, self.teacher.density.y_std)
        self.outputs = levels_of(self.unet)["output"].channels
        pooled = FeatureExtractor(
            self.features, extractor.condition, extractor.pooling, extractor.low_precision_cpu
        )
        cases = self.trainer.cases_folder
        self.source = CropSource(cases, pooled, self.teacher_plan, self.device)
        folder = cases.with_name(f"{cases.name}_rows") / self._identity
        self.store = RowStore(folder, self.source, self.features, self.settings.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed + 2)
            channels, hidden = extractor.condition.channels, self.distillation.hidden
            return LevelPerceptron(self.features.read, channels, hidden)

    def _refuse_targets(self) -> None:
        """Refuses settings of the score's targets, which nothing here would heed."""
        of_score = "tail_weight", "descriptor_weight", "deep_supervision", "jitter"
        odd = [name for name in of_score if getattr(self.distillation, name)]
        if odd:
            raise ScreenerError(
                f"distillation.{odd[0]} is a setting of a student that learns its teacher's score: "
                "add -o distillation.learns=score, or leave it out"
            )

    @property
    def _widths(self) -> list[int]:
        """Channels that are read, and those of the condition."""
        condition: Any = self.teacher.features.condition
        return [sum(self.features.read.values()), condition.channels]

    @property
    def _identity(self) -> str:
        """Of the networks and of the crops that they see."""
        crop = self.teacher_plan.settings.density.crop_size
        trained, seed = self.trainer.upstream_identity, self.settings.seed
        values = [trained, crop, seed, KEPT_POSITIONS, self._widths[0]]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]

    def make_ready(self) -> None:
        """Stores positions of the scans, shared among the processes; stored ones are used again."""
        names = self.trainer.scans_to_learn_from(self.settings)
        self.store.fill(names[self.trainer.local_rank :: self.trainer.ranks])
        if self.trainer.is_ddp:
            torch.distributed.barrier()

    def reader(self, names: tuple[str, ...], stage: str) -> RowReader:
        """Reads positions of scans."""
        folders = self.trainer.cases_folder, self.store.folder
        positions = self.distillation.positions
        return RowReader(*folders, names, self.settings.seed, stage, positions)

    def loss(
        self, batch: list[RowSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean squared error of the standardised condition."""
        rows = torch.cat([sample.rows.to(self.device) for sample in batch])
        read, condition = rows.split(self._widths, dim=1)
        wanted = self.teacher.density.standardised_conditions(condition)
        return F.mse_loss(self.trainer.network(as_map(read)), as_map(wanted)), {}

    @cached_property
    def _validation(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Of fixed validation crops, here and there: what is read, y, the teacher's scores.

        All networks but the head stay as they are, so they see these crops once.
        """
        names, stage = self.settings.split.validation, f"{self.trainer.stage} validation"
        reader, found = self.source.reader(names, self.settings.seed, stage), []
        for index in range(_VALIDATION_CROPS):
            try:
                maps, c = positions_in_body(self.source, reader[index])
            except CaseError:
                continue
            step = -(-len(maps) // _POSITIONS)
            read, y = self.features.parted(as_map(maps[::step]))
            found.append((read, y, -self.teacher.density.log_prob(y, as_map(c[::step]))))
        if not found:
            raise ScreenerError(
                f"none of {_VALIDATION_CROPS} crops of validation scans ({', '.join(names)}) holds "
                "body, so that nothing tells how well the student learns: plan with other scans to "
                "validate on, or with a larger density.crop_size"
            )
        return found

    def figure(self) -> float:
        """See `Lesson.figure`."""
        head: Any = self.trainer.model
        density, pairs = self.teacher.density, []
        for read, y, scores in self._validation:
            c = condition_of(head, read, density.c_mean, density.c_std)
            own = -density.log_prob(y, c)
            pairs.append(torch.stack([own.flatten(), scores.flatten()]))
        return correlation(pairs)

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """Of the UNet, the head and the density: the student needs no other file."""
        return {
            "network_weights": self.unet.state_dict(),
            HEAD: self.trainer.model.state_dict(),
            DENSITY: self.teacher.density.state_dict(),
        }

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the head; the rest is the teacher's."""
        self.trainer.model.load_state_dict(checkpoint[HEAD])

    @property
    def unet(self) -> nn.Module:
        """That of the descriptor."""
        return self.features.unet

    def extra_state(self) -> dict[str, Any]:
        """What its density is."""
        extractor = self.teacher.features
        channels = extractor.descriptor_channels, int(extractor.condition.channels)
        entry = teacher_entry(self.teacher_plan.settings.density, channels)
        return {**super().extra_state(), OF_TEACHER: entry}
