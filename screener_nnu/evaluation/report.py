"""Writes the figures of an evaluation: JSON, CSV, curves, and a table for the terminal."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.evaluate import Evaluation, MethodResult
from screener_nnu.evaluation.metrics import Scores, cumulate

_COLUMNS = {
    "auroc": "AUROC",
    "auroc_fpr30": "AUROC@0.3",
    "average_precision": "AP",
    "best_dice": "best Dice",
    "dice": "Dice",
}
_CURVE_POINTS = 2000


def write_report(
    evaluation: Evaluation, folder: Path, settings: Mapping[str, Any] | None = None
) -> str:
    """Writes `summary.json`, `cases.csv`, `pooled.csv` and `curves.png`.

    Args:
        evaluation: the figures.
        folder: where to write; made when missing.
        settings: what was evaluated and how, kept in the summary.

    Returns:
        Table of the pooled figures for the terminal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = json.dumps(_summary(evaluation, settings or {}), indent=2, allow_nan=False)
    (folder / "summary.json").write_text(summary + "\n", encoding="utf-8")
    _write_csv(folder / "cases.csv", ["case", "method", *_score_names()], _case_rows(evaluation))
    ends = [f"{name}_{end}" for name in _COLUMNS for end in ("low", "high")]
    _write_csv(
        folder / "pooled.csv", ["method", "cases", *_score_names(), *ends], _pooled_rows(evaluation)
    )
    plot_curves(evaluation, folder / "curves.png")
    return format_table(evaluation)


def _score_names() -> list[str]:
    return [column.name for column in fields(Scores)]


def _case_rows(evaluation: Evaluation) -> Iterable[dict[str, Any]]:
    for method, result in evaluation.methods.items():
        for case, scores in result.cases.items():
            yield {"case": case, "method": method, **asdict(scores)}


def _pooled_rows(evaluation: Evaluation) -> Iterable[dict[str, Any]]:
    for method, result in evaluation.methods.items():
        ends = {}
        for name, interval in result.intervals.items():
            ends[f"{name}_low"], ends[f"{name}_high"] = interval.low, interval.high
        yield {"method": method, "cases": len(result.cases), **asdict(result.scores), **ends}


def _write_csv(path: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    """Writes rows; a figure that is undefined or missing is an empty cell."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: "" if _undefined(value) else value for key, value in row.items()})


def _undefined(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _summary(evaluation: Evaluation, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the curves, with null for what is undefined, as JSON knows no NaN."""
    methods = {}
    for method, result in evaluation.methods.items():
        methods[method] = {
            "cases": len(result.cases),
            **_without_nan(asdict(result.scores)),
            "intervals_95": {
                name: _without_nan(asdict(interval)) for name, interval in result.intervals.items()
            },
        }
    return {
        "settings": dict(settings),
        "methods": methods,
        "cases": sorted(next(iter(evaluation.methods.values())).cases),
        "skipped": evaluation.skipped,
        "notes": evaluation.notes,
    }


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if _undefined(value) else value for key, value in values.items()}


def format_table(evaluation: Evaluation) -> str:
    """Pooled figures of each method as plain text, with their 95 % intervals over cases."""
    given = any(r.scores.threshold != r.scores.best_threshold for r in evaluation.methods.values())
    # Without a threshold chosen elsewhere the last column would only repeat the best Dice.
    names = [name for name in _COLUMNS if given or name != "dice"]
    header = ["method", "cases", *(_COLUMNS[name] for name in names)]
    rows = [_table_row(method, result, names) for method, result in evaluation.methods.items()]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *rows]
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines += [f"left out {case}: {reason}" for case, reason in evaluation.skipped.items()]
    lines += [f"note on {case}: {note}" for case, note in evaluation.notes.items()]
    return "\n".join(line.rstrip() for line in lines)


def _table_row(method: str, result: MethodResult, names: list[str]) -> list[str]:
    cells = [method, str(len(result.cases))]
    scores = asdict(result.scores)
    for name in names:
        cell = "-" if _undefined(scores[name]) else f"{scores[name]:.3f}"
        interval = result.intervals.get(name)
        if interval and not _undefined(interval.low):
            cell += f" [{interval.low:.3f}, {interval.high:.3f}]"
        cells.append(cell)
    return cells


def plot_curves(evaluation: Evaluation, path: Path) -> None:
    """Draws the pooled ROC and precision-recall curves of all methods."""
    # matplotlib takes a second to import, which a table of figures should not wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    roc, precision_recall = figure.subplots(1, 2)
    for method, result in evaluation.methods.items():
        if not 0 < result.scores.annotated < result.scores.voxels:
            continue
        fpr, tpr, precision = _curves(result)
        roc.plot(fpr, tpr, label=f"{method} ({result.scores.auroc:.3f})")
        label = f"{method} ({result.scores.average_precision:.3f})"
        precision_recall.plot(tpr[1:], precision[1:], label=label)
    roc.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    roc.axvline(0.3, color="grey", linestyle=":", linewidth=1)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC (AUROC)")
    precision_recall.set(xlabel="recall", ylabel="precision", title="Precision-recall (AP)")
    for axes in (roc, precision_recall):
        axes.set(xlim=(0, 1), ylim=(0, 1))
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def _curves(
    result: MethodResult,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """False positive rate, true positive rate and precision, thinned evenly along the curve."""
    hits = np.concatenate([[0.0], cumulate(result.pooled.positive)])
    false_alarms = np.concatenate([[0.0], cumulate(result.pooled.negative)])
    tpr, fpr = hits / hits[-1], false_alarms / false_alarms[-1]
    along = np.searchsorted(tpr + fpr, np.linspace(0, 2, _CURVE_POINTS))
    kept = np.unique(np.append(np.clip(along, 0, tpr.size - 1), [0, tpr.size - 1]))
    precision = hits[kept] / np.maximum(hits + false_alarms, 1)[kept]
    return fpr[kept], tpr[kept], precision
