"""The stage of detectors of other groups, whichever one the plan names."""

from __future__ import annotations

from typing import Any

import torch

from screener_nnu.baselines.base import BaselineMethod, build_method
from screener_nnu.baselines.window import scale
from screener_nnu.detectors import BASELINE
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import BaselineSettings
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.scoring.baseline import BaselineDetector
from screener_nnu.trainers.crop_training import CropTrainer
from screener_nnu.trainers.image_check import ImageCheck
from screener_nnu.trainers.score_statistics import measure_tiled_scores


class BaselineTrainer(CropTrainer):
    """Trains the method that `baseline.method` names on crops of scans that are taken as normal.

    What it learns from are the plan's normal cases, or all training cases where none are named, or
    where the method does not ask for normal ones.
    """

    stage = "baseline"
    figure_name = "AUROC on synthetic anomalies"

    @property
    def method_settings(self) -> BaselineSettings:  # type: ignore[override]
        """Settings of this stage."""
        return self.settings.baseline

    def build_method(self) -> BaselineMethod:
        """The method of the plan."""
        method = build_method(self.plan)
        self.detector = BaselineDetector(method, self.plan)
        self.reads = self.detector.reads
        self.score_statistics: dict[str, float] = {}
        cases = CaseFolder(self.cases_folder)
        self.check = ImageCheck(cases, self.plan, method.size, self.reads)
        return method

    def scaled(self, images: torch.Tensor) -> torch.Tensor:
        """Values of the window in [-1, 1]."""
        return scale(images, self.detector.window)

    def make_ready(self) -> None:
        """Paints synthetic anomalies."""
        if self.local_rank == 0:
            self.check.prepare()

    def validation_figure(self) -> float:
        """Mean AUROC over the kinds of synthetic anomalies in validation scans.

        Kinds that the method learns from itself stand in the log, but not in the mean.
        """
        self.model.eval()
        left_out = self.detector.method.resembles
        figures = self.check.auroc(self.detector.score, self.device, left_out)
        self.validation_terms = figures
        return figures["mean"]

    def finish(self) -> None:
        """Takes the epoch to keep, and measures the statistics of its scores."""
        if self.method_settings.keep == "best":
            self.keep_best_epoch()
        if self.local_rank != 0:  # the first process writes the checkpoint
            return
        self.final_figure = self.validation_figure()
        split, folder = self.settings.split, self.cases_folder
        try:
            self.score_statistics = measure_tiled_scores(
                self.detector, folder, split.train, self.plan, self.device
            )
        except ScreenerError as error:
            raise self._advised(f"{self.method_settings.method}: {error}") from error

    def diverged(self, reason: str, step: int) -> ScreenerError:
        """Says what helps this method, too."""
        return self._advised(str(super().diverged(reason, step)))

    def _advised(self, message: str) -> ScreenerError:
        advice = self.model.advice
        return ScreenerError(f"{message}. {advice}" if advice else message)

    def calibrate(self) -> None:
        """Measures on validation scans what the scores of this detector mean."""
        self.calibrate_as(BASELINE)

    @classmethod
    def own_settings(cls, settings: dict[str, Any]) -> Any:
        """Its own, and the patches of MedMix, which some methods paste."""
        return settings["baseline"], settings["pretext"]["medmix"]

    def extra_state(self) -> dict[str, Any]:
        """What prediction needs beside the weights."""
        return {"score_statistics": self.score_statistics}
