"""How long a step of a stage takes on this machine: a few real ones are made and thrown away."""

from __future__ import annotations

import glob
import json
import logging
import shutil
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch

from screener_nnu.detectors import BASELINE
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.map_store import MapStore, maps_folder
from screener_nnu.inference.models import load_features
from screener_nnu.locks import only_one
from screener_nnu.paths import cases_folder, plan_file, results_folder, stage_folder
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import ScreenerSettings, read_plan, write_json
from screener_nnu.sampling.spread import spread
from screener_nnu.stages import OPTIMISERS, STAGES
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.detector import Trained, planned_stages, stages_of, trained_ref
from screener_nnu.trainers.loading import PREFETCHED
from screener_nnu.trainers.run import new_trainer
from screener_nnu.trainers.stages import trainer_of

#: A stage, and the detector whose own plan it belongs to, or nothing where detectors share it.
Step = tuple[str, str]
logger = logging.getLogger(__name__)

#: Context of the work for one detector, by its name.
Guard = Callable[[str], AbstractContextManager[Any]]
# Steps on the clock at least, and of a method that trains its networks in turns.
_TIMED, _IN_TURNS = 6, 18
# Scans that they are made on: reading and painting all of them would take longer than the steps.
_TRAINING, _VALIDATION = 6, 2


def step_seconds(
    dataset: str,
    base_name: str,
    detectors: Sequence[str],
    name: str,
    device: torch.device,
    guard: Guard = nullcontext,
) -> dict[Step, float]:
    """Seconds a step of every stage of some detectors or starts that is trained step by step.

    Each is trained for a few steps on a few scans under a plan `name`, one stage upon the other,
    since a density needs a descriptor; all of it is removed again, also what an earlier call that
    was killed has left. Reading counts: a step lasts until the next one can begin.

    Args:
        dataset: name.
        base_name: plan of the detectors.
        detectors: what `screener_train` calls them.
        name: of a plan that is there for the measurement alone.
        device: to train on.
        guard: context of the measurement of one detector, which may catch its errors.

    Returns:
        Seconds by step, without those of a detector whose error was caught.
    """
    base = read_plan(plan_file(dataset, base_name)).settings
    split = base.split
    few = spread(split.presumed_normal, _TRAINING), spread(split.validation, _VALIDATION)
    train, validation = (json.dumps(cases) for cases in few)
    normal = train if split.normal else "[]"
    overrides = [f"split.normal={normal}", f"split.train={train}", f"split.validation={validation}"]
    numbers = step_numbers(base.workers)
    overrides += [word for stage in OPTIMISERS for word in short_schedule(stage, numbers)]
    overrides.append("calibration.max_scans=0")  # prediction is not on the clock

    found: dict[Step, float] = {}
    fitted: set[Step] = set()
    lock = results_folder(dataset) / f"{name}.lock"
    with only_one(lock, "nnUNet_results", f"measuring steps as {name}"):
        noted = results_folder(dataset) / f"{name}_maps.json"
        if noted.is_file():  # of a call that was killed, whose maps are there still
            _remove_maps(dataset, name, _noted_maps(noted), device)
        kept = _maps_there(dataset, base)
        write_json(noted, {"maps": sorted(path.name for path in kept)})
        _remove(dataset, name)
        try:
            derive_plan(dataset, name, overrides, base_name)
            models = [trained_ref(dataset, name, detector) for detector in detectors]
            needed: set[tuple[str, str]] = set()
            for model in models:
                with guard(model.detector):
                    needed.update(planned_stages(model).stages[:-1])
            for model in models:
                with guard(model.detector):
                    _measure(model, numbers, device, found, fitted, needed)
        finally:
            _remove_maps(dataset, name, {path.name for path in kept}, device)
            _remove(dataset, name)
            noted.unlink(missing_ok=True)
    return found


class StepNumbers(NamedTuple):
    """Steps before the clock, and those on it."""

    warm_up: int
    timed: int


def step_numbers(workers: int, in_turns: bool = False) -> StepNumbers:
    """How many steps are made for a measurement.

    Before the clock, what is fastest is found out, and all batches are used up that the reading
    processes had prepared before the first step, two of each: later ones come as fast as they are
    read. On the clock, each process reads twice at least, since their batches come in bursts.

    Args:
        workers: processes that read.
        in_turns: the method trains one of its networks a step, so that steps differ. Most steps
            are on the clock then: which network it is depends on the share of all steps.
    """
    warm_up = PREFETCHED * workers + 2
    least = max(_IN_TURNS, 2 * warm_up) if in_turns else _TIMED
    return StepNumbers(warm_up, max(least, PREFETCHED * workers))


def short_schedule(stage: str, numbers: StepNumbers, epochs: int = 1) -> list[str]:
    """Settings of a stage that is trained for the measurement."""
    steps = sum(numbers)
    values = {"steps": steps, "steps_per_epoch": -(-steps // epochs), "warmup_steps": 0}
    return [f"{OPTIMISERS[stage]}.{key}={value}" for key, value in values.items()]


def _measure(
    model: Trained,
    numbers: StepNumbers,
    device: torch.device,
    found: dict[Step, float],
    fitted: set[Step],
    needed: Container[tuple[str, str]],
) -> None:
    """Trains the stages of a detector, without those that others have trained.

    What no other stage is built upon is not finished: its scores would be measured on whole scans.
    """
    stages = stages_of(model, more=short_schedule(model.stage, numbers))
    settings = planned_stages(model).settings
    dataset = str(model.dataset)
    for stage, plans in stages:
        key = stage, model.detector if plans != model.plans else ""
        if key in found or key in fitted:
            continue
        if trainer_of(stage).takes_steps(settings):
            of_stage = numbers
            if stage == BASELINE and _in_turns(dataset, stage, plans, device):
                of_stage = step_numbers(settings.workers, in_turns=True)
                stages_of(model, restart=True, more=short_schedule(stage, of_stage))
            trainer = new_trainer(dataset, stage, plans, device)
            if (stage, plans) not in needed:
                trainer.finish = lambda: None  # type: ignore[method-assign]
            found[key] = _timed(trainer, of_stage.warm_up)
            logger.info("%s of %s: %.3f s a step", stage, model.detector, found[key])
        elif (stage, plans) != stages[-1]:
            new_trainer(dataset, stage, plans, device).run_training()
            fitted.add(key)


def _in_turns(dataset: str, stage: str, plans_name: str, device: torch.device) -> bool:
    """Whether a method trains one of several networks a step, which it knows when it is built."""
    trainer = new_trainer(dataset, stage, plans_name, device)
    trainer.build_model()
    return trainer.in_turns


def _timed(trainer: ScreenerTrainer, warm_up: int) -> float:
    clock = StepClock(trainer, warm_up)
    trainer.run_training()
    return clock.mean


class StepClock:
    """Seconds from step to step within the epochs of a training; waiting for a batch counts.

    Args:
        trainer: whose steps are on the clock.
        warm_up: steps that do not count in the mean.
    """

    def __init__(self, trainer: ScreenerTrainer, warm_up: int) -> None:
        """Puts the clock around the steps."""
        self.warm_up, self._device = warm_up, trainer.device
        self._step, self._begin = trainer.train_step, trainer.on_train_epoch_start
        self.durations: list[float] = []
        self._last = 0.0
        trainer.train_step = self._timed_step  # type: ignore[method-assign]
        trainer.on_train_epoch_start = self._timed_begin  # type: ignore[method-assign]

    def _timed_begin(self) -> None:
        self._begin()
        self._last = perf_counter()

    def _timed_step(self, batch: Any) -> Any:
        result = self._step(batch)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = perf_counter()
        self.durations.append(now - self._last)
        self._last = now
        return result

    @property
    def total(self) -> float:
        """Of all steps."""
        return sum(self.durations)

    @property
    def mean(self) -> float:
        """Of a step, the first ones left out; 0 where there are none."""
        counted = self.durations[self.warm_up :]
        return sum(counted) / len(counted) if counted else 0.0


def _measured_plans(dataset: str, name: str) -> list[str]:
    """Plans of a measurement, those of detectors included, whichever were named."""
    files = plan_file(dataset, name).parent.glob(f"{glob.escape(name)}*.json")
    own = [path.stem for path in files if path.stem.startswith(f"{name}_")]
    return [name, *own]


def _remove(dataset: str, name: str) -> None:
    """Plans and results of a measurement."""
    for plans in _measured_plans(dataset, name):
        for stage in STAGES:
            shutil.rmtree(stage_folder(dataset, stage, plans).parent, ignore_errors=True)
        plan_file(dataset, plans).unlink(missing_ok=True)


def _maps(dataset: str, settings: ScreenerSettings) -> Path:
    return maps_folder(cases_folder(dataset, settings.data_identifier))


def _maps_there(dataset: str, settings: ScreenerSettings) -> set[Path]:
    folder = _maps(dataset, settings)
    return set(folder.iterdir()) if folder.is_dir() else set()


def _noted_maps(path: Path) -> set[str]:
    """Names of the maps that were there before a measurement."""
    try:
        return {str(name) for name in json.loads(path.read_text())["maps"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ScreenerError(f"{path} is damaged: delete it and run again") from error


def _remove_maps(dataset: str, name: str, kept: set[str], device: torch.device) -> None:
    """Stored maps of networks that were trained for the measurement, and only those."""
    for plans in _measured_plans(dataset, name):
        if not (stage_folder(dataset, "density", plans)).is_dir():
            continue
        try:
            plan = read_plan(plan_file(dataset, plans))
            features = load_features(dataset, plan)
        except ScreenerError as error:  # a stop in the midst of removing
            logger.warning("stored maps of %s may be left: %s", plans, error)
            continue
        files = MapStore(_maps(dataset, plan.settings), features, plan, device).files
        for path in (files.y_folder, files.c_folder):
            if path is not None and path.name not in kept:
                shutil.rmtree(path, ignore_errors=True)
