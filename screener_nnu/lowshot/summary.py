"""All figures of a benchmark, from the finished trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from screener_nnu.finetuning.starts import SCRATCH
from screener_nnu.lowshot.curves import epochs_to_reach, mean_curve
from screener_nnu.lowshot.design import LowShotRun, Setting
from screener_nnu.lowshot.floor import Floors
from screener_nnu.lowshot.measure import Record, nan_mean
from screener_nnu.lowshot.statistics import (
    METRICS,
    CaseTable,
    Comparison,
    Estimate,
    case_table,
    compare,
    estimate,
    holm,
)


@dataclass(frozen=True)
class Row:
    """A line of a table.

    Attributes:
        num_cases: size of the training set.
        start: name of the start, or of a floor.
        mean: over cases.
        seeds: mean of each seed.
        against_scratch: the comparison with `control_of`, but for scratch itself and floors.
    """

    num_cases: int
    start: str
    mean: Estimate
    seeds: tuple[float, ...] = ()
    against_scratch: Comparison | None = None


@dataclass(frozen=True)
class LearningCurve:
    """Pseudo Dice of a start, averaged over its trainings.

    Attributes:
        num_cases, start: which trainings.
        values: pseudo Dice (epochs,).
        epochs_to_scratch: epochs until it is as high as scratch in the end; None if never.
    """

    num_cases: int
    start: str
    values: NDArray[np.float64]
    epochs_to_scratch: int | None


@dataclass(frozen=True)
class Summary:
    """What the report shows.

    Attributes:
        starts: names in order.
        floors: names in order.
        tables: figures of cases by metric, then one for each size of the training set.
        rows: lines by metric.
        curves: learning curves.
    """

    starts: tuple[str, ...]
    floors: tuple[str, ...]
    tables: dict[str, dict[int, CaseTable]]
    rows: dict[str, list[Row]]
    curves: list[LearningCurve] = field(default_factory=list)


def summarise(
    runs: Sequence[LowShotRun],
    records: Sequence[Record],
    floors: Mapping[str, Floors],
    curves: Mapping[str, NDArray[np.float64]],
) -> Summary:
    """Figures of a benchmark.

    Args:
        runs: all trainings of the design.
        records: figures of the finished ones.
        floors: by their names.
        curves: pseudo Dice (epochs,) of the finished ones, by the name of the run.
    """
    starts = tuple(dict.fromkeys(run.start for run in runs))
    sizes = sorted({run.setting.num_cases for run in runs})
    tables: dict[str, dict[int, CaseTable]] = {}
    for metric in METRICS:
        made = {size: case_table(records, metric, size, starts) for size in sizes}
        tables[metric] = {size: table for size, table in made.items() if table is not None}
    rows = {metric: _rows(tables[metric]) for metric in METRICS}
    rows["dice"] = _with_floors(rows["dice"], tables["dice"], floors)
    return Summary(starts, tuple(floors), tables, rows, _curves(runs, tables["dice"], curves))


def _rows(tables: Mapping[int, CaseTable]) -> list[Row]:
    rows = []
    for size, table in tables.items():
        for start, seeds in zip(table.starts, table.by_seed, strict=True):
            control, against = control_of(start, table.starts), None
            if control is not None:
                against = compare(table.row(start), table.row(control))
            mean = estimate(table.row(start))
            rows.append(Row(size, start, mean, tuple(map(float, seeds)), against))
    return _corrected(rows)


def control_of(start: str, starts: Sequence[str]) -> str | None:
    """Random weights that a start is compared with; None where there are none among the starts.

    They are trained by stock nnU-Net, or without such a start by what trains this one.

    Example:
        >>> control_of("student-probe", ["scratch-probe", "student-probe"])
        'scratch-probe'
    """
    if SCRATCH in starts:
        return SCRATCH if start != SCRATCH else None
    alike = (s for s in starts if s.startswith(f"{SCRATCH}-") and s != start)
    return next((s for s in alike if start.endswith(s.removeprefix(SCRATCH))), None)


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with p values corrected for the number of comparisons of the metric."""
    corrected = holm([row.against_scratch.p if row.against_scratch else np.nan for row in rows])
    return [
        replace(row, against_scratch=replace(row.against_scratch, p_holm=p))
        if row.against_scratch
        else row
        for row, p in zip(rows, corrected, strict=True)
    ]


def _with_floors(
    rows: Sequence[Row], tables: Mapping[int, CaseTable], floors: Mapping[str, Floors]
) -> list[Row]:
    """The rows with the floors, on the same cases, after those of their size."""
    result: list[Row] = []
    for size, table in tables.items():
        result += [row for row in rows if row.num_cases == size]
        settings = [Setting(size, *pair) for pair in table.settings]
        for name, floor in floors.items():
            used = [floor[setting].dice for setting in settings if setting in floor]
            values = [nan_mean(dice[case] for dice in used if case in dice) for case in table.cases]
            known = np.array(values)[np.isfinite(values)]
            if known.size:
                result.append(Row(size, name, estimate(known)))
    return result


def _curves(
    runs: Sequence[LowShotRun],
    tables: Mapping[int, CaseTable],
    curves: Mapping[str, NDArray[np.float64]],
) -> list[LearningCurve]:
    result = []
    for size, table in tables.items():
        settings = {Setting(size, *pair) for pair in table.settings}
        means = {}
        for start in table.starts:
            own = [r.name for r in runs if r.start == start and r.setting in settings]
            means[start] = mean_curve([curves[name] for name in own])
        scratch = means.get(SCRATCH, np.array([]))
        result += [
            LearningCurve(size, start, mean, epochs_to_reach(mean, scratch))
            for start, mean in means.items()
        ]
    return result
