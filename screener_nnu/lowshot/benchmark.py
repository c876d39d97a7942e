"""The whole benchmark: train, measure, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.lowshot.curves import read_curve
from screener_nnu.lowshot.design import LowShotRun
from screener_nnu.lowshot.floor import central_balls, map_thresholds
from screener_nnu.lowshot.measure import Record, measure
from screener_nnu.lowshot.report import write_report
from screener_nnu.lowshot.summary import summarise

logger = logging.getLogger(__name__)

BALL = "central ball"


def report(
    dataset: LabelledDataset,
    runs: Sequence[LowShotRun],
    failures: Mapping[str, str],
    settings: Mapping[str, Any],
    folder: Path,
    maps: Mapping[str, Mapping[str, Path]] | None = None,
) -> str:
    """Measures the finished trainings of a benchmark and writes its report.

    Args:
        dataset: the labelled dataset.
        runs: all trainings of the design.
        failures: reasons, by the name of the training, of those that do not count.
        settings: what was asked for, as plain values.
        folder: of the report.
        maps: anomaly maps by case, by the name of the floor that a threshold on them makes.

    Returns:
        The report's text.

    Raises:
        ScreenerError: no training is finished.
    """
    problems = dict(failures)
    records, curves = measured(dataset, runs, settings["nsd_tolerance_mm"], problems)
    if not records:
        reasons = [f"\n{name}: {why}" for name, why in list(problems.items())[:5]]
        raise ScreenerError(f"no training of {len(runs)} is finished{''.join(reasons)}")
    floors = {BALL: central_balls(dataset, runs)}
    for name, files in (maps or {}).items():
        floors[name] = map_thresholds(dataset, runs, files, problems)
    summary = summarise(runs, records, floors, curves)
    known = {**settings, "finished": len(curves)}
    return write_report(folder, summary, known, runs, records, floors, problems)


def measured(
    dataset: LabelledDataset,
    runs: Sequence[LowShotRun],
    tolerance: float,
    failures: dict[str, str],
) -> tuple[list[Record], dict[str, NDArray[np.float64]]]:
    """Figures and learning curves, by the name of the run, of the finished trainings.

    What cannot be measured is added to the failures.
    """
    records: list[Record] = []
    curves: dict[str, NDArray[np.float64]] = {}
    finished = [run for run in runs if run.training.finished and run.name not in failures]
    for run in tqdm(finished, desc="measuring", unit="training"):
        try:
            own, curve = measure(run, dataset, tolerance), read_curve(run.training)
        except ScreenerError as error:
            failures[run.name] = str(error)
            logger.error("%s cannot be measured: %s", run.name, error)
            continue
        records += own
        curves[run.name] = curve
    return records, curves
