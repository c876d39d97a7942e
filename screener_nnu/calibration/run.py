"""Calibrates a trained model: after its training, or later."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from screener_nnu.calibration.check import Checked, check_scans
from screener_nnu.calibration.measure import (
    calibrate_on,
    each_usable,
    measure_annotated,
    measure_scans,
)
from screener_nnu.calibration.record import SOURCES, Calibration
from screener_nnu.calibration.scans import (
    ScanSource,
    ScoredScan,
    find_masks,
    image_scans,
    load_predictor,
    stored_scans,
)
from screener_nnu.calibration.store import (
    calibration_file,
    kept_annotated,
    load_calibration,
    save_calibration,
    trained_identity,
)
from screener_nnu.case_score import FLAG_PERCENTILE, case_score
from screener_nnu.detectors import ModelRef
from screener_nnu.devices import asked_of_workers
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.elsewhere import Job, predictor_of
from screener_nnu.inference.images import find_images
from screener_nnu.inference.predict import Predictor
from screener_nnu.paths import cases_folder
from screener_nnu.preprocessing.modality import PICTURE
from screener_nnu.sampling.spread import spread
from screener_nnu.workers.crew import current_crew

logger = logging.getLogger(__name__)

DEFAULT_SCANS = 32
# Training cases that are looked at for odd ones, and of these, how many are named.
_TRAINING_CASES, _SHOWN = 500, 10


class Calibrator:
    """A model and the calibration beside its weights.

    Args:
        model: names it.
        device: to predict on.
        max_scans: scans at most, spread evenly over the list; None for the plan's setting.
    """

    def __init__(
        self,
        model: ModelRef,
        device: torch.device,
        max_scans: int | None = None,
    ) -> None:
        """Loads the model."""
        self.model = model
        self.predictor: Predictor
        self.predictor, self.high = load_predictor(model, device)
        self.settings = self.predictor.plan.settings
        self.asked_scans = max_scans
        self.max_scans = max_scans or self.settings.calibration.max_scans or DEFAULT_SCANS

    @property
    def _at_work(self) -> Callable[[], Predictor]:
        """Gives the model: this one, or in workers one that each has loaded."""
        if current_crew() is None:
            return lambda: self.predictor
        return partial(predictor_of, Job.of(self.model, asked_of_workers(self.predictor.device)))

    @property
    def file(self) -> Path:
        """Where the calibration lies."""
        return calibration_file(self.model)

    def on_validation_scans(self) -> Calibration:
        """Calibrates on the plan's validation scans, as they were prepared, and stores it.

        Raises:
            ScreenerError: the plan names none, or none can be used.
        """
        names = spread(self.settings.split.validation, self.max_scans)
        if not names:
            raise ScreenerError(
                f"the plan {self.model.plans} names no validation scans, as plans out of a model "
                "file do: give scans of your own that nobody trained on, with --images"
            )
        folder = cases_folder(self.model.dataset, self.settings.data_identifier)
        return self._calibrate(stored_scans(self._at_work, folder, names), SOURCES[0])

    def name_odd_training_cases(self, calibration: Calibration) -> None:
        """Logs how many training cases score as few normal ones do: some may be no normal ones.

        Raises:
            ScreenerError: no training case can be used.
        """
        names = spread(self.settings.split.train, _TRAINING_CASES)
        folder = cases_folder(self.model.dataset, self.settings.data_identifier)
        score = partial(_case_score, percentile=calibration.case_percentile)
        scores, _ = each_usable(stored_scans(self._at_work, folder, names), score)
        limit = float(np.percentile(calibration.case_scores, FLAG_PERCENTILE))
        odd = sorted((c for c in scores if scores[c] > limit), key=lambda c: -scores[c])
        logger.info(
            "%d of %d training cases score above the %gth percentile of held-out ones, where some "
            "%d %% are to be expected of normal ones%s",
            len(odd),
            len(scores),
            FLAG_PERCENTILE,
            100 - FLAG_PERCENTILE,
            f"; look at {', '.join(odd[:_SHOWN])}" if odd else "",
        )

    def on_images(self, folder: Path) -> Calibration:
        """Calibrates on the scans of a folder, and stores it."""
        images = find_images(folder)
        self._refuse_known(images, self.settings.split.test, "test")
        self._refuse_known(images, self.settings.split.train, "training")
        names = spread(list(images), self.max_scans)
        scans = image_scans(self._at_work, {name: images[name] for name in names})
        return self._calibrate(scans, SOURCES[1])

    def on_annotated(self, folder: Path, masks: Path) -> Calibration:
        """Adds thresholds of annotated cases to the calibration; without one, makes it first."""
        calibration = load_calibration(self.model)
        if calibration is None and not self.settings.split.validation:
            command = self.model.command("calibrate")
            raise ScreenerError(
                "annotated cases alone do not say what is usual; calibrate on scans of your own "
                f"first, the same ones if there are no others:\n    {command} --images {folder}"
            )
        images = find_images(folder)
        self._refuse_known(images, self.settings.split.test, "test")
        self._refuse_known(images, self.settings.split.train, "training")
        annotated = image_scans(self._at_work, images, find_masks(masks, images))
        calibration = calibration or self.on_validation_scans()
        made = calibration.with_annotated(measure_annotated(annotated, calibration.percentiles))
        save_calibration(made, self.file)
        return made

    def check(self, folder: Path, calibration: Calibration) -> Checked:
        """Counts components of the scans of a folder at a calibration's thresholds; stores nothing.

        All scans, unless `max_scans` was given: nothing large is kept of any.
        """
        images = find_images(folder)
        self._refuse_known(images, self.settings.split.train, "training")
        names = spread(list(images), self.asked_scans or len(images))
        scans = image_scans(self._at_work, {name: images[name] for name in names})
        return check_scans(scans, calibration.false_positives)

    def _refuse_known(self, images: Iterable[str], known: Iterable[str], use: str) -> None:
        """Cases of a pool are named after their data set, as in `501_case`."""
        listed = set(known)
        plain = {n[4:] for n in listed if n[:3].isdigit() and n[3:4] == "_"}
        met = sorted(name for name in images if name in listed | plain)
        if met:
            raise ScreenerError(
                f"{met[0]} ({len(met)} in all) has the name of a {use} scan of the plan "
                f"{self.model.plans}: take it out of the folder, or rename it if it is another one"
            )

    def _calibrate(self, scans: ScanSource, source: str) -> Calibration:
        begun = time.monotonic()
        measured = measure_scans(scans, self.high)
        identity = trained_identity(self.model)
        calibration = calibrate_on(measured, identity, source)
        annotated = kept_annotated(self.file, identity)
        if annotated is not None:
            calibration = calibration.with_annotated(annotated)
        if calibration.scans == 1:
            logger.warning("one scan was used: how much scans differ cannot be told")
        save_calibration(calibration, self.file)
        seconds = (time.monotonic() - begun) / len(scans)
        logger.info("calibrated on %d scans, %.1f s a scan", calibration.scans, seconds)
        return calibration


def _case_score(case: str, scan: ScoredScan, percentile: float) -> float:
    return case_score(scan.in_body(case), percentile)


def calibrate_trained(model: ModelRef, device: torch.device, max_scans: int) -> None:
    """Calibrates a model that has just been trained, unless it is calibrated already.

    Whatever goes wrong is logged: the training is done, and `screener_calibrate` can follow.

    Args:
        model, device: see `Calibrator`.
        max_scans: the plan's setting; 0 leaves it to `screener_calibrate`.
    """
    if not max_scans or load_calibration(model) is not None:
        return
    try:
        calibrator = Calibrator(model, device, max_scans)
        calibration = calibrator.on_validation_scans()
        if calibrator.settings.preprocessing.modality == PICTURE:  # of scans it would take hours
            calibrator.name_odd_training_cases(calibration)
    except Exception as error:
        command = model.command("calibrate")
        logger.warning(
            "the model is finished, but it was not calibrated (%s); run\n    %s", error, command
        )
