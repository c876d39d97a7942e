"""Stage 4: one UNet that gives the teacher's score, from what stock nnU-Net feeds it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from screener_nnu.calibration.run import calibrate_trained
from screener_nnu.checkpoints import write_array
from screener_nnu.errors import CaseError
from screener_nnu.files import file_sha256
from screener_nnu.finetuning.checkpoint import stock_checkpoint
from screener_nnu.inference.models import load_teacher
from screener_nnu.inference.sliding_window import cells_to_voxels
from screener_nnu.inference.volume import normalise_hu
from screener_nnu.networks.unet import build_unet
from screener_nnu.paths import finished_checkpoint
from screener_nnu.plans import DistillationSettings, OptimiserSettings, ScreenerSettings, Shape
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.resampling import resample_mask_to_shape
from screener_nnu.sampling.crops import Box
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.trainers.base import ScreenerTrainer, check_crop
from screener_nnu.trainers.reading import (
    CaseReader,
    Pinnable,
    random_start,
    read_padded,
    step_batches,
)
from screener_nnu.trainers.score_statistics import case_scores

logger = logging.getLogger(__name__)

_VALIDATION_CROPS = 24
_AIR_HU = -1024


@dataclass(frozen=True)
class DistillationSample(Pinnable):
    """HU crop and its body mask, its start, and the teacher's scores on the cells of the case."""

    hu: torch.Tensor
    body: torch.Tensor
    cells: torch.Tensor
    start: Shape


class DistillationReader(CaseReader[DistillationSample]):
    """Reads HU crops and the stored scores of the teacher."""

    def __init__(
        self,
        folder: Path,
        scores_folder: Path,
        names: tuple[str, ...],
        seed: int,
        stage: str,
        crop_size: Shape,
    ) -> None:
        """Scores lie in `scores_folder` as `<case>.npy`."""
        super().__init__(folder, names, seed, stage)
        self.scores_folder = scores_folder
        self.crop_size = crop_size

    def read(self, case: str, generator: np.random.Generator) -> DistillationSample:
        """A crop anywhere in the case."""
        extent = self.cases.shape(case, "hu")
        box = Box(random_start(generator, extent, self.crop_size), self.crop_size)
        hu = read_padded(self.cases, case, "hu", box, _AIR_HU)
        try:
            cells = np.load(self.scores_folder / f"{case}.npy")
        except (OSError, ValueError) as error:
            raise CaseError(case, f"its teacher scores cannot be read ({error})") from error
        return DistillationSample(
            torch.from_numpy(hu),
            torch.from_numpy(self._body(case, box, extent)),
            torch.from_numpy(cells),
            box.start,
        )

    def _body(self, case: str, box: Box, extent: Shape) -> np.ndarray:
        if self.cases.shape(case, "body") == extent:
            return read_padded(self.cases, case, "body", box, 0)
        body = resample_mask_to_shape(self.cases.read(case, "body"), extent)
        window = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
        missing = [(0, n - m) for n, m in zip(box.size, body[window].shape, strict=True)]
        return np.pad(body[window], missing)


def _is_current(scores: Path, cases: CaseFolder, case: str) -> bool:
    try:
        return scores.is_file() and scores.stat().st_mtime >= cases.changed(case)
    except CaseError:
        return False


class DistillationTrainer(ScreenerTrainer):
    """Regresses the standardised, tail-clipped score with a plain mean squared error (paper)."""

    stage = "distillation"
    figure_name = "correlation with the teacher"

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

    def stage_settings_check(self) -> None:
        """The crop must fit the network's strides."""
        check_crop(self.distillation.crop_size, self.plan, "distillation.crop_size")

    def build_model(self) -> nn.Module:
        """The student: the plan's UNet with one linear output."""
        self.teacher_plans = self.distillation.density_plans or self.plans_manager.plans_name
        network = build_unet(self.plan, 1, 1, self.settings.seed + 2)
        if self._do_i_compile():
            network.compile()
        return network

    def on_train_start(self) -> None:
        """Scores the scans with the teacher first; stored scores are used again."""
        if not self.was_initialized:
            self.initialize()
        self.check_cases()
        self._store_teacher_scores()
        super().on_train_start()

    @property
    def scores_folder(self) -> Path:
        """Scores of exactly this teacher."""
        folder = self.cases_folder.with_name(f"{self.cases_folder.name}_scores")
        return folder / self.upstream_identity

    def _store_teacher_scores(self) -> None:
        """One file of float32 scores a case, on the teacher's cells: small, exact, resumable."""
        teacher, plan, self.score_statistics = load_teacher(
            self.plans_manager.dataset_name, self.teacher_plans, self.device
        )
        self.cell = teacher.cell
        folder = self._scores = self.scores_folder
        folder.mkdir(parents=True, exist_ok=True)
        cases = CaseFolder(self.cases_folder)
        train, validation = self.do_split()
        ranks = torch.distributed.get_world_size() if self.is_ddp else 1
        # Shared out before looking what is there: other processes are writing already.
        share = list(dict.fromkeys(train + validation))[self.local_rank :: ranks]
        own = [case for case in share if not _is_current(folder / f"{case}.npy", cases, case)]
        for case in tqdm(own, desc="teacher scores", unit="scan", disable=not own):
            try:
                scores, _ = case_scores(teacher, cases, case, plan, self.device)
            except CaseError as error:  # the reader leaves it out, too
                logger.warning("left out: %s", error)
                continue
            write_array(folder / f"{case}.npy", scores.numpy())
        if self.is_ddp:
            torch.distributed.barrier()

    def _reader(self, names: tuple[str, ...], stage: str) -> DistillationReader:
        return DistillationReader(
            self.cases_folder,
            self._scores,
            names,
            self.settings.seed,
            stage,
            self.distillation.crop_size,
        )

    def training_batches(self, first_step: int) -> Iterator[list[DistillationSample]]:
        """Crops of this process."""
        reader = self._reader(self.settings.split.train, self.stage)
        return step_batches(
            reader, self.volumes_per_step, first_step, *self.share_of_rank(), self.settings.workers
        )

    def target(self, sample: DistillationSample) -> torch.Tensor:
        """Standardised score of each voxel of a crop, (D, H, W); outside the body the lowest one.

        The upper tail is clipped at `clip_sigma`: a few voxels would own the squared error.
        """
        statistics = self.score_statistics
        cells = sample.cells.to(self.device)
        scores = cells_to_voxels(cells, self.cell, sample.start, self.distillation.crop_size)
        inside = sample.body.to(self.device) > 0
        scores = torch.where(inside, scores, scores.new_tensor(statistics["lowest"]))
        standardised = (scores - statistics["mean"]) / statistics["std"]
        limit = self.distillation.clip_sigma
        lowest = (statistics["lowest"] - statistics["mean"]) / statistics["std"]
        return standardised.clamp(max(lowest, -limit), limit)

    def _batch(self, samples: list[DistillationSample]) -> tuple[torch.Tensor, torch.Tensor]:
        images = [normalise_hu(s.hu.to(self.device), self.plan)[None] for s in samples]
        targets = [self.target(s)[None] for s in samples]
        return torch.stack(images), torch.stack(targets)

    def compute_loss(
        self, batch: list[DistillationSample], step: int
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Mean squared error; image and target are mirrored together, per crop and axis."""
        images, targets = self._batch(batch)
        if self.distillation.mirror:
            generator = torch_generator(
                self.device, self.settings.seed, f"{self.stage} device", step, self.local_rank
            )
            draws = torch.rand(len(batch), 3, generator=generator, device=self.device) < 0.5
            for index, axes in enumerate(draws.tolist()):
                flips = [axis + 1 for axis, flip in enumerate(axes) if flip]
                images[index] = images[index].flip(flips)
                targets[index] = targets[index].flip(flips)
        with self.autocast():
            scores = self.network(images)
        return nn.functional.mse_loss(scores.float(), targets), {}

    @torch.no_grad()
    def validation_figure(self) -> float:
        """Pearson correlation with the teacher's scores in the body of fixed validation crops."""
        self.model.eval()
        reader = self._reader(self.settings.split.validation, f"{self.stage} validation")
        pairs = []
        for index in range(_VALIDATION_CROPS):
            sample = reader[index]
            images, targets = self._batch([sample])
            with self.autocast():
                scores = self.model(images).float()
            inside = sample.body.to(self.device)[None, None] > 0
            pairs.append(torch.stack([scores[inside], targets[inside]]))
        return float(torch.corrcoef(torch.cat(pairs, dim=1).cpu().double())[0, 1])

    def calibrate(self) -> None:
        """Measures on validation scans what the scores of this student mean."""
        calibrate_trained(
            self.plans_manager.dataset_name,
            self.plans_manager.plans_name,
            False,
            self.device,
            self.settings.calibration.max_scans,
        )

    @classmethod
    def upstream(cls, dataset: str, plan: dict[str, Any]) -> str:
        """Hash of the teacher's checkpoint."""
        settings = ScreenerSettings.from_dict(plan["screener"]).distillation
        teacher = settings.density_plans or plan["plans_name"]
        return file_sha256(finished_checkpoint(dataset, "density", teacher))[:12]

    def extra_state(self) -> dict[str, Any]:
        """What prediction and stock fine-tuning need beside the weights."""
        stock = stock_checkpoint(self.model, self.plan, self.dataset_json)
        return {**stock, "score_statistics": self.score_statistics}
