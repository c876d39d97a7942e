"""Writes the figures of whole cases: JSON, ROC curves, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from screener_nnu.evaluation.case_evaluation import CaseEvaluation
from screener_nnu.evaluation.case_figures import FLAGGING, RANKING, roc_of_cases
from screener_nnu.evaluation.case_images import NO_LEARNING
from screener_nnu.evaluation.case_results import ScoreResult
from screener_nnu.evaluation.case_table import CASE_SCORE
from screener_nnu.evaluation.plots import line_styles
from screener_nnu.evaluation.tables import aligned, cell, named, summarised, without_nan
from screener_nnu.files import replacing
from screener_nnu.plans import write_json

CASE_FILES = ("cases_summary.json", "cases_roc.png")


def write_case_report(
    evaluation: CaseEvaluation, folder: Path, settings: Mapping[str, Any] | None = None
) -> str:
    """Writes `cases_summary.json` and `cases_roc.png`.

    Args:
        evaluation: the figures.
        folder: where to write; made when missing.
        settings: what was evaluated and how, kept in the summary.

    Returns:
        Table of the figures and all remarks, for the terminal.
    """
    plot_case_roc(evaluation, folder / CASE_FILES[1])
    write_json(folder / CASE_FILES[0], _summary(evaluation, settings or {}))
    return "\n".join(line.rstrip() for line in _lines(evaluation)).rstrip()


def _summary(evaluation: CaseEvaluation, settings: Mapping[str, Any]) -> dict[str, Any]:
    methods: dict[str, dict[str, Any]] = {}
    for result in evaluation.results:
        known = np.isfinite(result.values)
        methods.setdefault(result.method, {})[result.score] = {
            "cases": int(known.sum()),
            "abnormal": int(evaluation.abnormal[known].sum()),
            **summarised(result.figures, result.intervals),
        }
    return {
        "settings": dict(settings),
        "methods": methods,
        "auroc_differences": [
            {
                "first": difference.first,
                "other": difference.other,
                "score": difference.score,
                **without_nan({"difference": difference.auroc}),
                "interval_95": difference.interval and without_nan(asdict(difference.interval)),
            }
            for difference in evaluation.differences
        ],
        "flagged_from": evaluation.thresholds,
        "leaky_threshold": evaluation.leaky,
        "groups": evaluation.groups or None,
        "cases": evaluation.matched.cases,
        "left_out": evaluation.matched.left_out,
        "unlabelled": evaluation.matched.unlabelled,
        "notes": evaluation.notes,
    }


def _lines(evaluation: CaseEvaluation) -> Iterator[str]:
    """The table, and below it what has to be known to read it."""
    rows = [["method", "score", "normal", "abnormal", *RANKING.values(), *FLAGGING.values()]]
    for result in evaluation.results:
        ill = evaluation.abnormal[np.isfinite(result.values)]
        figures = [
            cell(result.figures.get(name, np.nan), result.intervals.get(name))
            for name in (*RANKING, *FLAGGING)
        ]
        numbers = [str(int((~ill).sum())), str(int(ill.sum()))]
        rows.append([result.method, result.score, *numbers, *figures])
    yield from aligned(rows, words=2)
    yield ""
    for method, threshold in evaluation.thresholds.items():
        leaky = ", WHICH IS LEAKY: it was chosen on the cases that it is measured on"
        yield f"{method} flags from {threshold} on{leaky if evaluation.leaky else ''}"
    for difference in evaluation.differences:
        shown = cell(difference.auroc, difference.interval)
        yield (
            f"AUROC of {difference.score}: {difference.first} minus {difference.other} is {shown}"
        )
    if evaluation.groups:
        yield f"intervals over {evaluation.groups} groups of cases"
    if any(result.method == NO_LEARNING for result in evaluation.results):
        yield (
            f"{NO_LEARNING}: AUROC of the values as they are; below 0.5 the lower ones are abnormal"
        )
    reasons: dict[str, list[str]] = {}
    for case, reason in evaluation.matched.left_out.items():
        reasons.setdefault(reason, []).append(case)
    for reason, cases in reasons.items():
        yield f"left out, {reason}: {named(cases)}"
    if evaluation.matched.unlabelled:
        yield f"left out, not in the table of labels: {named(evaluation.matched.unlabelled)}"
    yield from (f"note: {note}" for note in evaluation.notes)


def plot_case_roc(evaluation: CaseEvaluation, path: Path) -> None:
    """Draws the ROC curve of the case score of each method, and of images without learning."""
    # matplotlib takes a second to import, which a table of figures should not wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {
        result.method if result.score == CASE_SCORE else f"{result.score} ({NO_LEARNING})": result
        for result in evaluation.results
        if result.score == CASE_SCORE or result.method == NO_LEARNING
    }
    figure = Figure(figsize=(5.4, 5.4 + 0.24 * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    maps = [name for name, result in shown.items() if result.method != NO_LEARNING]
    for name, style in line_styles(maps, [name for name in shown if name not in maps]).items():
        result = shown[name]
        if np.isfinite(result.figures["auroc"]):
            known = np.isfinite(result.values)
            false, true = roc_of_cases(result.values[known], evaluation.abnormal[known])
            axes.plot(false, true, **style, label=f"{name}:  AUROC {result.figures['auroc']:.3f}")
            _mark(axes, result, style["color"])
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC of cases")
    axes.set(xlim=(0, 1), ylim=(0, 1.01))
    axes.grid(color="0.92", linewidth=0.8)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _mark(axes: Any, result: ScoreResult, colour: Any) -> None:
    """A point where cases are flagged."""
    sensitivity = result.figures.get("sensitivity", np.nan)
    specificity = result.figures.get("specificity", np.nan)
    axes.plot([1 - specificity], [sensitivity], "o", color=colour, clip_on=False, zorder=4)
