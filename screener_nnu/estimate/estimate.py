"""Time, disk and memory of a whole run, from a few scans that go through all of it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from screener_nnu.ablation.schedules import optimiser_of
from screener_nnu.detectors import STUDENT, ModelRef
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.estimate.phases import EPOCH, FIGURE, READY, Measured, measure
from screener_nnu.estimate.sample import Sample, sampled
from screener_nnu.files import bytes_below
from screener_nnu.inference.predict import Predictor, predict_files
from screener_nnu.paths import plan_file, preprocessed_folder
from screener_nnu.planners.fingerprint import analyse_case
from screener_nnu.planners.modality import modality_of_datasets
from screener_nnu.planners.pictures import PicturePlanning
from screener_nnu.planners.run import plan_dataset, preprocess_planned
from screener_nnu.planners.split import split_cases
from screener_nnu.planners.variants import derive_plan
from screener_nnu.planners.volumes import VolumePlanning
from screener_nnu.plans import ScreenerSettings, read_plan
from screener_nnu.preprocessing.memory import estimate_bytes
from screener_nnu.preprocessing.modality import PICTURE
from screener_nnu.sampling.spread import spread
from screener_nnu.stages import OPTIMISERS
from screener_nnu.trainers.detector import stages_of
from screener_nnu.trainers.run import new_trainer
from screener_nnu.trainers.stages import trainer_of
from screener_nnu.trainers.step_time import short_schedule, step_numbers
from screener_nnu.workers import run_cases

# Scans that are tried: some for each process, and so many of them held out.
_LEAST, _MOST, _HELD_OUT = 12, 32, 3
_PREDICTED = 4
_SHORT = "ScreenerEstimate"


@dataclass(frozen=True)
class Line:
    """What a part of the run will take.

    Attributes:
        name: of the part.
        work: what is done in it.
        seconds: in all.
        disk: bytes that stay.
        memory: highest, of this machine (bytes), all processes together; 0 where it is not known.
        device: highest, of a GPU (bytes).
    """

    name: str
    work: str
    seconds: float
    disk: float = 0.0
    memory: float = 0.0
    device: float = 0.0


@dataclass(frozen=True)
class _Run:
    """What was asked for.

    Attributes:
        names: of all scans.
        settings: of the plan, whose split has as many cases as that of the whole run.
        processes: that prepare scans.
    """

    names: list[str]
    settings: ScreenerSettings
    processes: int


def estimate(
    datasets: list[str],
    processes: int,
    request: Mapping[str, Any],
    device: torch.device,
    overrides: Sequence[str] = (),
    modality: str | None = None,
) -> list[Line]:
    """What planning, preparing, the training of the student, and a prediction will take.

    A dozen scans or more are planned, prepared and trained on for a few steps, in folders that are
    removed again; nothing of an earlier run is read or changed.

    Args:
        datasets: raw data sets by number or name.
        processes: that prepare scans.
        request: arguments of `ScreenerPlanner`.
        device: to train on.
        overrides: settings `key=value` that take the place of the planner's.
        modality: of the images; by default what the data sets say.

    Raises:
        ScreenerError: no such data set, or too few of the scans can be used.
    """
    most = min(max(_LEAST, 3 * processes), _MOST)
    with sampled(datasets, most) as sample:
        names = list(sample.chosen)
        modality = modality_of_datasets(names, modality)
        reading = _reading(sample, processes, modality)
        # Test scans are taken off in the arithmetic: the sample needs all that it has.
        tried = {**request, "num_test": 0}
        free = next(n for n in range(999, 0, -1) if not any(f"{n:03d}" == s[7:10] for s in names))
        pool = (free, "Estimate") if len(names) > 1 else None
        dataset = plan_dataset(names, pool, processes, tried, False, overrides, modality)
        plans = str(request["plans_name"])
        preprocess_planned(dataset, plans, processes)
        settings = read_plan(plan_file(dataset, plans)).settings
        every = [f"{name}/{case}" for name, cases in sample.cases.items() for case in cases]
        run = _Run(every, _as_many(settings, every, int(request["num_test"])), processes)
        lines = [_read_line(run, reading), _prepared_line(run, sample, dataset)]
        _shorten(dataset, plans, run)
        lines += _trained_lines(run, sample, dataset, device)
        return [*lines, _predicted_line(sample, dataset, device)]


def _as_many(settings: ScreenerSettings, names: list[str], num_test: int) -> ScreenerSettings:
    """The settings of the sample with a split of all scans."""
    pictures = settings.preprocessing.modality == PICTURE
    held_out = (PicturePlanning if pictures else VolumePlanning).held_out
    split = split_cases(dict.fromkeys(names, ""), num_test, settings.seed, {}, *held_out)
    return replace(settings, split=split)


def _seconds_to_read(case: str, path: Path, modality: str) -> float:
    begun = perf_counter()
    try:
        analyse_case(case, path, modality)
    except CaseError:
        return math.nan
    return perf_counter() - begun


def _reading(sample: Sample, processes: int, modality: str) -> float:
    """Seconds that a process takes for the fingerprint of a scan, with the others beside it."""
    work = partial(_seconds_to_read, modality=modality)
    alone = 0 if processes <= 1 else processes
    found = [s for _, s in run_cases(work, sample.images, alone, lambda reason: math.nan)]
    usable = [seconds for seconds in found if math.isfinite(seconds)]
    if not usable:
        raise ScreenerError(f"none of {len(found)} scans that were tried can be used")
    return sum(usable) / len(usable)


def _read_line(run: _Run, seconds: float) -> Line:
    scans = len(run.names)
    work = f"{scans} scans, {seconds:.2f} s each, {run.processes} at a time"
    return Line("reading", work, scans * seconds / run.processes)


def _prepared_line(run: _Run, sample: Sample, dataset: str) -> Line:
    summary = json.loads(
        (preprocessed_folder(dataset) / "preprocessing_summary.json").read_text(encoding="utf-8")
    )
    scans, seconds = len(run.names), summary["seconds_per_scan"]
    at_a_time = max(1, summary["processes"])
    work = f"{scans} scans, {seconds:.2f} s each, {at_a_time} at a time"
    needs = (estimate_bytes(path, run.settings.preprocessing) for path in sample.images.values())
    return Line(
        "preparing",
        work,
        scans * seconds / at_a_time,
        scans * summary["bytes_per_scan"],
        at_a_time * max(needs),
    )


def _shorten(dataset: str, plans: str, run: _Run) -> None:
    """A plan of the same with few steps, and enough held-out scans to tell what one costs.

    Where a stage looks at a part of the scans, so it does of the sample: the student's then finds
    the maps of as large a part as the density has stored, and makes those of the others.
    """
    settings = read_plan(plan_file(dataset, plans)).settings
    names = sorted({*settings.split.train, *settings.split.validation})
    held_out = spread(names, min(_HELD_OUT, max(1, len(names) // 2)))
    train = [name for name in names if name not in held_out] or held_out
    words = [f"split.train={json.dumps(train)}", f"split.validation={json.dumps(held_out)}"]
    whole = len(run.settings.split.train)
    for stage, most in (
        ("density", settings.density.max_scans),
        ("distillation", settings.distillation.max_scans),
    ):
        if 0 < most < whole:
            words.append(f"{stage}.max_scans={max(1, round(most * len(train) / whole))}")
    numbers = step_numbers(settings.workers)
    for stage in OPTIMISERS:
        words += short_schedule(stage, numbers, epochs=2)
    derive_plan(dataset, _SHORT, words, plans)


def _trained_lines(run: _Run, sample: Sample, dataset: str, device: torch.device) -> list[Line]:
    """A line for each stage of the student."""
    lines = []
    short = read_plan(plan_file(dataset, _SHORT)).settings
    numbers = step_numbers(short.workers)
    for stage, plans in stages_of(ModelRef(dataset, _SHORT, STUDENT)):
        cases, results = sample.used("preprocessed"), sample.used("results")
        trainer = new_trainer(dataset, stage, plans, device)
        found = measure(trainer, numbers.warm_up)
        tried, whole = (trainer_of(stage).scans_of_phases(s) for s in (short, run.settings))
        grown = _grown(READY, tried, whole)
        disk = (sample.used("preprocessed") - cases) * grown + sample.used("results") - results
        steps = optimiser_of(run.settings, stage)
        seconds, work = training_seconds(found, tried, whole, steps.steps, steps.steps_per_epoch)
        lines.append(Line(stage, work, seconds, disk, found.host, found.device))
    return lines


def training_seconds(
    found: Measured,
    tried: Mapping[str, int],
    whole: Mapping[str, int],
    steps: int,
    steps_per_epoch: int,
) -> tuple[float, str]:
    """Seconds of a whole training, and what they are made of."""
    epochs = math.ceil(steps / steps_per_epoch) if found.step else 0
    seconds = found.rest + steps * found.step if epochs else found.rest
    for phase, spent in found.seconds.items():
        if not found.calls[phase]:
            continue
        once = spent / found.calls[phase] * _grown(phase, tried, whole)
        calls = found.calls[phase]
        if phase == EPOCH:
            calls = epochs
        elif phase == FIGURE:  # beside those of the epochs, of the start and perhaps of the end
            calls += epochs - found.calls[EPOCH]
        seconds += once * calls
    words = [f"{steps} steps of {found.step:.2f} s"] if epochs else ["fitted in one pass"]
    if whole:
        words.append(f"networks on {max(whole.values())} scans")
    return seconds, ", ".join(words)


def _grown(phase: str, tried: Mapping[str, int], whole: Mapping[str, int]) -> float:
    """How many times as many scans a phase goes through."""
    return whole[phase] / tried[phase] if tried.get(phase) else 1.0


def _predicted_line(sample: Sample, dataset: str, device: torch.device) -> Line:
    """A scan of the sample, from its file to its map."""
    loaded = ModelRef(dataset, _SHORT, STUDENT).load(device)
    predictor = Predictor.of(loaded, device)
    images = dict(spread(list(sample.images.items()), _PREDICTED + 1))
    images = {case.replace("/", "_"): path for case, path in images.items()}
    first, *others = images
    out = sample.root / "maps"
    predict_files(predictor, {first: images[first]}, out / "first")
    begun = perf_counter()
    skipped = predict_files(predictor, {case: images[case] for case in others}, out / "others")
    scans = len(others) - len(skipped)
    seconds = (perf_counter() - begun) / max(1, scans)
    disk = bytes_below(out / "others") / max(1, scans)
    return Line("prediction", "of each scan", seconds, disk)
