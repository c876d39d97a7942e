"""How long a step of a stage takes on this machine: a few real ones are made and thrown away."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

import numpy as np
import torch

from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.map_store import MapStore, maps_folder
from screener_nnu.inference.models import load_features
from screener_nnu.locks import locked
from screener_nnu.paths import cases_folder, plan_file, results_folder, stage_folder
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import ScreenerSettings, read_plan
from screener_nnu.sampling.spread import spread
from screener_nnu.stages import OPTIMISERS, STAGES
from screener_nnu.trainers.detector import planned_stages, stages_of
from screener_nnu.trainers.run import new_trainer
from screener_nnu.trainers.stages import trainer_of

#: A stage, and the detector whose own plan it belongs to, or nothing where detectors share it.
Step = tuple[str, str]
logger = logging.getLogger(__name__)

# Steps before the clock, which find out what is fastest and fill queues, and those on it.
_WARM_UP, _TIMED = 2, 6
# Scans that they are made on: reading and painting all of them would take longer than the steps.
_TRAINING, _VALIDATION = 6, 3


def step_seconds(
    dataset: str, base_name: str, detectors: Sequence[str], name: str, device: torch.device
) -> dict[Step, float]:
    """Seconds a step of every stage of some detectors that is trained step by step.

    Each is trained for a few steps on a few scans under a plan `name`, one stage upon the other,
    since a density needs a descriptor; all of it is removed again, also what an earlier call that
    was killed has left. Reading counts: a step lasts until the next one can begin.

    Args:
        dataset: name.
        base_name: plan of the detectors.
        detectors: names of `DETECTORS`.
        name: of a plan that is there for the measurement alone.
        device: to train on.

    Returns:
        Seconds by step.
    """
    base = read_plan(plan_file(dataset, base_name)).settings
    split = base.split
    few = spread(split.presumed_normal, _TRAINING), spread(split.validation, _VALIDATION)
    train, validation = (json.dumps(cases) for cases in few)
    normal = train if split.normal else "[]"
    overrides = [f"split.normal={normal}", f"split.train={train}", f"split.validation={validation}"]
    overrides += [word for stage in OPTIMISERS for word in short_schedule(stage)]

    def refuse() -> NoReturn:
        raise ScreenerError(f"another process is measuring steps as {name}: wait for it or stop it")

    found: dict[Step, float] = {}
    fitted: set[Step] = set()
    with locked(results_folder(dataset) / f"{name}.lock", "nnUNet_results", refuse):
        kept = _maps_there(dataset, base)
        _remove(dataset, name, detectors)
        try:
            derive_plan(dataset, name, overrides, base_name)
            for detector in detectors:
                _measure(ModelRef(dataset, name, detector), device, found, fitted)
        finally:
            _remove_maps(dataset, name, detectors, kept, device)
            _remove(dataset, name, detectors)
    return found


def short_schedule(stage: str) -> list[str]:
    """Settings of a stage that is trained for the measurement."""
    steps = _WARM_UP + _TIMED
    values = {"steps": steps, "steps_per_epoch": steps, "warmup_steps": 0}
    return [f"{OPTIMISERS[stage]}.{key}={value}" for key, value in values.items()]


def _measure(
    model: ModelRef, device: torch.device, found: dict[Step, float], fitted: set[Step]
) -> None:
    """Trains the stages of a detector, without those that others have trained."""
    stages = stages_of(model, more=short_schedule(model.stage))
    settings = planned_stages(model).settings
    dataset = str(model.dataset)
    for stage, plans in stages:
        key = stage, model.detector if plans != model.plans else ""
        if key in found or key in fitted:
            continue
        if trainer_of(stage).takes_steps(settings):
            found[key] = _timed(dataset, stage, plans, device)
            logger.info("%s of %s: %.3f s a step", stage, model.detector, found[key])
        elif (stage, plans) != stages[-1]:
            new_trainer(dataset, stage, plans, device).run_training()
            fitted.add(key)


def _timed(dataset: str, stage: str, plans_name: str, device: torch.device) -> float:
    trainer = new_trainer(dataset, stage, plans_name, device)
    clock = _Clock(trainer.train_step, device)
    trainer.train_step = clock  # type: ignore[method-assign]
    trainer.run_training()
    return clock.seconds


class _Clock:
    """Makes steps and notes when they end."""

    def __init__(self, step: Callable[[Any], Any], device: torch.device) -> None:
        self.step, self.device = step, device
        self.ends: list[float] = []

    def __call__(self, batch: Any) -> Any:
        result = self.step(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.ends.append(perf_counter())
        return result

    @property
    def seconds(self) -> float:
        """Mean time between the ends of two steps, the first ones left out."""
        return float(np.mean(np.diff(self.ends[_WARM_UP - 1 :])))


def _remove(dataset: str, name: str, detectors: Sequence[str]) -> None:
    """Plans and results of a measurement."""
    for plans in (name, *(f"{name}_{detector}" for detector in detectors)):
        for stage in STAGES:
            shutil.rmtree(stage_folder(dataset, stage, plans).parent, ignore_errors=True)
        plan_file(dataset, plans).unlink(missing_ok=True)


def _maps(dataset: str, settings: ScreenerSettings) -> Path:
    return maps_folder(cases_folder(dataset, settings.data_identifier))


def _maps_there(dataset: str, settings: ScreenerSettings) -> set[Path]:
    folder = _maps(dataset, settings)
    return set(folder.iterdir()) if folder.is_dir() else set()


def _remove_maps(
    dataset: str, name: str, detectors: Sequence[str], kept: set[Path], device: torch.device
) -> None:
    """Stored maps of networks that were trained for the measurement, and only those."""
    for plans in (name, *(f"{name}_{detector}" for detector in detectors)):
        if not (stage_folder(dataset, "density", plans)).is_dir():
            continue
        plan = read_plan(plan_file(dataset, plans))
        folder = _maps(dataset, plan.settings)
        files = MapStore(folder, load_features(dataset, plan), plan, device).files
        for path in (files.y_folder, files.c_folder):
            if path is not None and path not in kept:
                shutil.rmtree(path, ignore_errors=True)
