"""The figures of a comparison as a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

from screener_nnu.ablation.compared import Table
from screener_nnu.ablation.costs import Costs
from screener_nnu.ablation.figures import AUROC, FURTHER, MEAN, Figure
from screener_nnu.ablation.scoring import CASE_SCORE
from screener_nnu.detectors import DetectorSpec
from screener_nnu.synthetic.cases import FAMILIES

_ENDS = ("", "_low", "_high")
_COSTS = ("seconds", "megabytes", "parameters", "training_seconds")


def csv_of(
    tables: Sequence[Table], costs: Mapping[str, Costs], specs: Mapping[str, DetectorSpec]
) -> str:
    """A line a method and family; figures of kinds of the other family stay empty."""
    columns = list(dict.fromkeys(k for table in tables for k in FAMILIES[table.family]))
    columns.append(MEAN)
    names = [AUROC, *FURTHER]
    figures = [f"{name}_{column}" for name in names for column in columns]
    less = ["difference", *(f"difference_{name}" for name in FURTHER)]
    wide = [f"{name}{end}" for name in (*figures, "case_auroc", *less) for end in _ENDS]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "kinds", "unit", "runs", *wide, *_COSTS, "steps"])
    for table in tables:
        for method, one in table.rows.items():
            found = [one.figures[name].get(column) for name in names for column in columns]
            found.append(one.row.case_auroc[CASE_SCORE])
            detector = method in table.detectors
            found += [one.differences[name] if detector else None for name in names]
            values = [value for figure in found for value in _values(figure)]
            unit = specs[method].unit if detector else ""
            rest = [getattr(costs[method], name) for name in _COSTS] if detector else []
            rest += [sum(costs[method].steps.values())] if detector else []
            runs = len(one.row.seeds)
            writer.writerow([method, table.family, unit, runs, *values, *rest])
    return buffer.getvalue()


def _values(figure: Figure | None) -> tuple[float | None, ...]:
    """Value and interval; None, where there is none, becomes an empty field."""
    if figure is None or math.isnan(figure.value):
        return (None, None, None)
    return (figure.value, figure.low, figure.high)
