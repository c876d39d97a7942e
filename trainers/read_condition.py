"""A student that learns to read its teacher's condition off the stages of their descriptor."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.descriptors.student_features import StudentFeatures
from screener_nnu.detectors import TEACHER, ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.reading_student import teacher_entry
from screener_nnu.networks.levels import levels_of
from screener_nnu.networks.probed import LevelPerceptron
from screener_nnu.scoring.reading_student import condition_of
from screener_nnu.scoring.teacher import FeatureExtractor
from screener_nnu.stage_checkpoint import DENSITY, HEAD, OF_TEACHER
from screener_nnu.trainers.density_maps import CropReader, CropSource
from screener_nnu.trainers.lesson import Lesson
from screener_nnu.trainers.reading import CropSample

_VALIDATION_CROPS, _POSITIONS = 24, 2000
# Of stages, y and c: rows (1, channels, n, 1, 1).
_Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class ConditionLesson(Lesson):
    """Regresses the standardised condition at the positions of crops (mean squared error).

    What a UNet that regresses the score lacks is mainly the condition: its crop does not say where
    it lies, and few steps do not teach what takes a network of its own. Descriptor and density are
    there already. So a student keeps both, and a head on all stages of the descriptor learns the
    rest. Crops are those of the density, as large as tiles of a prediction in the presets:
    instance normalisation then sees the same.
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
        self.outputs = levels_of(self.unet)["output"].channels
        pooled = FeatureExtractor(
            self.features, extractor.condition, extractor.pooling, extractor.low_precision_cpu
        )
        folder = self.trainer.cases_folder
        self.source = CropSource(folder, pooled, self.teacher_plan, self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed + 2)
            channels, hidden = extractor.condition.channels, self.distillation.hidden
            return LevelPerceptron(self.features.stages, channels, hidden)

    def _refuse_targets(self) -> None:
        """Refuses settings of the score's targets, which nothing here would heed."""
        of_score = "tail_weight", "descriptor_weight", "deep_supervision", "jitter"
        odd = [name for name in of_score if getattr(self.distillation, name)]
        if odd:
            raise ScreenerError(
                f"distillation.{odd[0]} is a setting of a student that learns its teacher's score: "
                "add -o distillation.learns=score, or leave it out"
            )

    def make_ready(self) -> None:
        """Nothing is stored: the networks see each crop as it comes."""

    def reader(self, names: tuple[str, ...], stage: str) -> CropReader:
        """Reads crops of the density's size."""
        return self.source.reader(names, self.settings.seed, stage)

    def _rows(self, sample: CropSample) -> _Rows:
        """Maps at the positions in the body of a crop, at all of them where none is."""
        maps, c, inside = self.source.maps(sample, [])
        assert c is not None
        inside = inside[0].flatten()
        places = (inside if inside.any() else torch.ones_like(inside)).nonzero()[:, 0]
        taken, condition = (m.flatten(2)[:, :, places, None, None] for m in (maps, c))
        return *self.features.parted(taken), condition

    def loss(
        self, batch: list[CropSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Every position of the crops counts the same."""
        rows = [self._rows(sample) for sample in batch]
        stages, _, condition = (torch.cat(part, dim=2) for part in zip(*rows, strict=True))
        density = self.teacher.density
        mean, std = (v.view(1, -1, 1, 1, 1) for v in (density.c_mean, density.c_std))
        read = self.trainer.network(stages)
        return F.mse_loss(read, (condition - mean) / std), {}

    @cached_property
    def _validation(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Of fixed validation crops, at positions here and there: stages, y, the teacher's scores.

        All networks but the head stay as they are, so they see these crops once.
        """
        reader = self.reader(self.settings.split.validation, f"{self.trainer.stage} validation")
        found = []
        for index in range(_VALIDATION_CROPS):
            rows = self._rows(reader[index])
            step = -(-rows[0].shape[2] // _POSITIONS)
            stages, y, c = (part[:, :, ::step] for part in rows)
            found.append((stages, y, -self.teacher.density.log_prob(y, c)))
        return found

    def figure(self) -> float:
        """See `Lesson.figure`."""
        head: Any = self.trainer.model
        density, pairs = self.teacher.density, []
        for stages, y, scores in self._validation:
            c = condition_of(head, stages, density.c_mean, density.c_std)
            own = -density.log_prob(y, c)
            pairs.append(torch.stack([own.flatten(), scores.flatten()]))
        return float(torch.corrcoef(torch.cat(pairs, dim=1).cpu().double())[0, 1])

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
