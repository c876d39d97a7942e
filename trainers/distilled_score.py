"""A student of the teacher's score: one UNet regresses it from what stock nnU-Net feeds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from screener_nnu.detectors import TEACHER as DETECTOR_TEACHER
from screener_nnu.detectors import ModelRef
from screener_nnu.inference.sliding_window import cells_to_voxels
from screener_nnu.inference.volume import normalised
from screener_nnu.losses.distillation import distillation_loss
from screener_nnu.networks.outputs import join_outputs, split_outputs
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import RARITY
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.modality import modality_of
from screener_nnu.sampling.crops import as_batch
from screener_nnu.sampling.mirroring import mirrored
from screener_nnu.stage_checkpoint import finished_stage
from screener_nnu.trainers.distillation_reading import (
    DistillationReader,
    DistillationSample,
    TargetFiles,
)
from screener_nnu.trainers.lesson import Lesson, correlation
from screener_nnu.trainers.rarity_target import RarityTarget
from screener_nnu.trainers.storing import Networks
from screener_nnu.trainers.student_images import jittered_hu
from screener_nnu.trainers.teacher_targets import TeacherTargets

_VALIDATION_CROPS = 24


class ScoreLesson(Lesson):
    """Regresses the standardised, tail-clipped score with a plain mean squared error (paper).

    Settings that are off unless asked for change what is learned for the sake of fine-tuning:
    `descriptor_weight` adds the teacher's descriptors as further outputs, which are dropped from
    the student, `tail_weight` counts high scores more, `deep_supervision` trains the decoder's
    coarser outputs as well, and `jitter` changes the student's images and not their targets.
    """

    targets: TargetFiles | None = None
    rarity: RarityTarget | None = None

    def build(self) -> nn.Module:
        """The student: the plan's UNet with one linear output, and in training the descriptors."""
        self.descriptors = self._descriptor_channels()
        network = build_unet(
            self.plan,
            self.plan.channels,
            1 + self.descriptors,
            self.settings.seed + 2,
            deep_supervision=self.distillation.deep_supervision,
        )
        if self.trainer._do_i_compile():
            network.compile()
        return network

    def _descriptor_channels(self) -> int:
        if not self.distillation.descriptor_weight:
            return 0
        # Of the file: a plan may take the descriptor of another one.
        density = finished_stage(self.plan.dataset, "density", self.trainer.teacher_plans)
        return int(density.read()["channels"][0])

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """The student, and apart from it the outputs that only training needs."""
        student, rest = split_outputs(self.trainer.model.state_dict(), 1)
        own = {"network_weights": student}
        return {**own, "descriptor_outputs": rest} if self.descriptors else own

    def load_weights(self, checkpoint: dict[str, Any]) -> None:
        """Takes up both."""
        rest = checkpoint.get("descriptor_outputs", {})
        self.trainer.model.load_state_dict(join_outputs(checkpoint["network_weights"], rest))

    def make_ready(self) -> None:
        """Scores the scans with the teacher; stored scores are used again."""
        if self.distillation.target == RARITY:
            self._measure_rarity()
        else:
            self._store_teacher_scores()

    def _measure_rarity(self) -> None:
        self.rarity = RarityTarget(self.plan.dataset, self.settings.preprocessing.spacing)
        cases = CaseFolder(self.trainer.cases_folder)
        self.score_statistics = self.rarity.statistics(cases, self.settings.split.train)

    @property
    def scores_folder(self) -> Path:
        """Scores of exactly this teacher."""
        folder = self.trainer.cases_folder.with_name(f"{self.trainer.cases_folder.name}_scores")
        return folder / self.trainer.upstream_identity

    def _store_teacher_scores(self) -> None:
        """Makes the targets, shared among the processes."""
        model = ModelRef(self.plan.dataset, self.trainer.teacher_plans, DETECTOR_TEACHER)
        teacher, plan, self.score_statistics = model.load(self.device)
        self._y_scale = teacher.density.y_mean.clone(), teacher.density.y_std.clone()
        store = TeacherTargets(
            teacher,
            plan,
            self.trainer.cases_folder,
            self.scores_folder,
            self.device,
            self.descriptors > 0,
        )
        self.targets = store.files
        wanted = (*self.trainer.scans_to_learn_from(self.settings), *self.settings.split.validation)
        ranks = self.trainer.ranks
        names = list(dict.fromkeys(wanted))[self.trainer.local_rank :: ranks]
        trained = self.trainer.upstream_identity
        networks = Networks.of(self.plan.dataset, self.trainer.teacher_plans, trained, self.device)
        store.fill(names, networks)
        if self.trainer.is_ddp:
            torch.distributed.barrier()

    def reader(self, names: tuple[str, ...], stage: str) -> DistillationReader:
        """Reads HU crops, and what the teacher says of them."""
        return DistillationReader(
            self.trainer.cases_folder,
            self.targets,
            names,
            self.settings.seed,
            stage,
            self.distillation.crop_size,
            modality_of(self.settings.preprocessing).beyond,
        )

    def target(self, sample: DistillationSample) -> torch.Tensor:
        """Standardised score of each voxel of a crop, (D, H, W); outside the body the lowest one.

        The upper tail is clipped at `clip_sigma`: a few voxels would own the squared error.
        """
        statistics = self.score_statistics
        scores = self._scores(sample)
        inside = sample.body.to(self.device) > 0
        scores = torch.where(inside, scores, scores.new_tensor(statistics["lowest"]))
        standardised = (scores - statistics["mean"]) / statistics["std"]
        limit = self.distillation.clip_sigma
        lowest = (statistics["lowest"] - statistics["mean"]) / statistics["std"]
        return standardised.clamp(max(lowest, -limit), limit)

    def _scores(self, sample: DistillationSample) -> torch.Tensor:
        """Scores (D, H, W) in nats of a crop."""
        if self.rarity is not None:
            return self.rarity.scores(sample.hu).to(self.device)
        assert self.targets is not None
        cells = sample.cells.to(self.device)
        size = self.distillation.crop_size
        return cells_to_voxels(cells, self.targets.cell, sample.start, size)

    def descriptor_target(self, sample: DistillationSample) -> torch.Tensor:
        """Standardised descriptors of each voxel of a crop, (d, D, H, W), 0 outside the body."""
        assert self.targets is not None
        shift = tuple(a - b for a, b in zip(sample.start, sample.y_start, strict=True))
        mean, std = (v.to(self.device)[:, None, None, None] for v in self._y_scale)
        y = (sample.y.to(self.device) - mean) / std
        size = self.distillation.crop_size
        inside = sample.body.to(self.device) > 0
        return cells_to_voxels(y, self.targets.cell, shift, size) * inside  # type: ignore[arg-type]

    def _batch(self, samples: list[DistillationSample]) -> tuple[torch.Tensor, torch.Tensor]:
        """HU images (B, C, ...) and targets (B, 1 + d, ...)."""
        images = [as_batch(s.hu.to(self.device))[0] for s in samples]
        targets = [self.target(s)[None] for s in samples]
        if self.descriptors:
            more = [self.descriptor_target(s) for s in samples]
            targets = [torch.cat(pair) for pair in zip(targets, more, strict=True)]
        return torch.stack(images), torch.stack(targets)

    def loss(
        self, batch: list[DistillationSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean squared error; image and target are mirrored together, per crop and axis."""
        changed = [
            self._changed(*self._batch([sample]), generator)
            for sample, generator in zip(batch, self.trainer.sample_generators(step), strict=True)
        ]
        images, targets = (torch.cat(part) for part in zip(*changed, strict=True))
        with self.trainer.autocast():
            outputs = self.trainer.network(normalised(images, self.plan))
        if self.distillation.deep_supervision:
            outputs = [output.float() for output in outputs]
        else:
            outputs = outputs.float()
        return distillation_loss(outputs, targets, self.distillation)

    def _changed(
        self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image and target, mirrored together; the image jittered."""
        if self.distillation.mirror:
            images, targets = mirrored((images, targets), generator)
        if self.distillation.jitter:
            images = jittered_hu(images, self.plan, generator)
        return images, targets

    @torch.no_grad()
    def figure(self) -> float:
        """Pearson correlation with the teacher's scores in the body of fixed validation crops."""
        self.trainer.model.eval()
        reader = self.reader(self.settings.split.validation, f"{self.trainer.stage} validation")
        pairs = []
        for index in range(_VALIDATION_CROPS):
            sample = reader[index]
            images, targets = self._batch([sample])
            with self.trainer.autocast():
                outputs = self.trainer.model(normalised(images, self.plan))
            finest = outputs[0] if self.distillation.deep_supervision else outputs
            scores = finest.float()[:, :1]
            inside = sample.body.to(self.device)[None, None] > 0
            pairs.append(torch.stack([scores[inside], targets[:, :1][inside]]))
        return correlation(pairs)

    @property
    def unet(self) -> nn.Module:
        """The student, with the outputs that only training needs."""
        network: nn.Module = self.trainer.model
        return network
