"""Stage 4: one UNet in place of descriptor, condition and density."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from screener_nnu.detectors import STUDENT
from screener_nnu.files import file_sha256
from screener_nnu.finetuning.checkpoint import stock_checkpoint
from screener_nnu.networks.outputs import split_outputs
from screener_nnu.paths import finished_checkpoint
from screener_nnu.plans import (
    TEACHER,
    DistillationSettings,
    OptimiserSettings,
    Plan,
    ScreenerSettings,
)
from screener_nnu.sampling.spread import at_most
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.distilled_score import ScoreLesson
from screener_nnu.trainers.lesson import Lesson
from screener_nnu.trainers.read_condition import ConditionLesson


class DistillationTrainer(ScreenerTrainer):
    """Trains a student by the lesson that `distillation.learns` names.

    `score`: the UNet learns to give the teacher's score (paper), see `ScoreLesson`. `condition`: a
    head on the teacher's descriptor learns to give its condition, see `ConditionLesson`.
    """

    stage = "distillation"
    figure_name = "correlation with the teacher"

    @classmethod
    def scans_of_phases(cls, settings: ScreenerSettings) -> dict[str, int]:
        """Networks see every scan that is learned from; for a score those held out, too."""
        held_out = len(settings.split.validation)
        calibrated = min(settings.calibration.max_scans, held_out)
        seen = len(cls.scans_to_learn_from(settings))
        if not settings.distillation.reads_condition:
            seen += held_out
        return {"make_ready": seen, "calibrate": calibrated}

    @classmethod
    def scans_to_learn_from(cls, settings: ScreenerSettings) -> tuple[str, ...]:
        """The plan's training cases, or as many of them as the settings ask for."""
        return at_most(settings.split.train, settings.distillation.max_scans)

    @property
    def distillation(self) -> DistillationSettings:
        """Settings of this stage."""
        return self.settings.distillation

    @property
    def optimiser_settings(self) -> OptimiserSettings:
        """Of this stage."""
        return self.distillation.optimiser

    @property
    def volumes_per_step(self) -> int:
        """Crops of a step."""
        return self.distillation.volumes_per_step

    @property
    def teacher_plans(self) -> str:
        """The plan whose teacher is distilled."""
        return self.distillation.density_plans or self.plan.name

    def build_model(self) -> nn.Module:
        """What the lesson trains."""
        reads = self.distillation.reads_condition
        self.lesson: Lesson = ConditionLesson(self) if reads else ScoreLesson(self)
        return self.lesson.build()

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """Those of the lesson."""
        return self.lesson.weights()

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes them up."""
        self.lesson.load_weights(checkpoint)

    def make_ready(self) -> None:
        """Makes the targets, or what they are made with."""
        self.lesson.make_ready()

    def training_batches(self, first_step: int) -> Iterator[list[Any]]:
        """Crops of this process."""
        reader = self.lesson.reader(self.scans_to_learn_from(self.settings), self.stage)
        return self.batches(reader, first_step)

    def compute_loss(
        self, batch: list[Any], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """That of the lesson."""
        return self.lesson.loss(batch, step)

    @torch.no_grad()
    def validation_figure(self) -> float:
        """Pearson correlation with the teacher's scores in the bodies of validation scans."""
        self.model.eval()
        return self.lesson.figure()

    def calibrate(self) -> None:
        """Measures on validation scans what the scores of this student mean."""
        self.calibrate_as(STUDENT)

    @classmethod
    def upstream(cls, dataset: str, plan: Plan) -> str:
        """Hash of the teacher's checkpoint."""
        settings = plan.settings.distillation
        if settings.target != TEACHER:
            return settings.target
        teacher = settings.density_plans or plan.name
        return file_sha256(finished_checkpoint(dataset, "density", teacher))[:12]

    def extra_state(self) -> dict[str, Any]:
        """What prediction and stock fine-tuning need beside the weights."""
        stock = stock_checkpoint(self.lesson.unet, self.plan, self.dataset_json)
        student, _ = split_outputs(stock["network_weights"], self.lesson.outputs)
        return {**stock, "network_weights": student, **self.lesson.extra_state()}
