"""Tables and pictures of a comparison of detectors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from screener_nnu.ablation.compare_csv import csv_of
from screener_nnu.ablation.compared import Table
from screener_nnu.ablation.costs import Costs
from screener_nnu.ablation.figures import AUROC, FURTHER, MEAN, Figure
from screener_nnu.ablation.report import draw, short
from screener_nnu.ablation.scoring import CASE_SCORE
from screener_nnu.case_score import IMAGE
from screener_nnu.checkpoints import write_bytes
from screener_nnu.detectors import DetectorSpec
from screener_nnu.plans import write_json
from screener_nnu.synthetic.cases import FAMILIES

#: First part of the names of the report's files.
REPORT = "detectors"
_FAMILIES = {
    "painted": "Painted anomalies: foreign, shifted, constant or deformed tissue",
    "altered": "Altered tissue, of a family that no detector is trained on",
}
_CASES_NOTE = (
    "cases: AUROC of the case score, scans with anomalies of a kind against the same scans without."
)
_STEPS_NOTE = "Equal steps are not equal work: methods differ in crops a step and in their size."
# Part of the minutes that whole steps may leave.
_SLACK = 0.05
_CHANGE_NOTE = (
    "By change: AUROC of the anomalous voxels that changed by so many HU within the window (in "
    "other modalities, 800 from black to white), whatever their kind."
)
_FOUND_NOTE = "found at 1 FP: share of anomalies found with one false positive a scan (FROC)."


def report_files(folder: Path) -> list[Path]:
    """Everything that a comparison may write, the JSON file first."""
    ends = [".json", ".md", ".csv", ".png", "_slices.png"]
    return [folder / f"{REPORT}{end}" for end in [*ends, *(f"_{name}.png" for name in FAMILIES)]]


def write_comparison(
    tables: Sequence[Table],
    costs: Mapping[str, Costs],
    specs: Mapping[str, DetectorSpec],
    folder: Path,
    about: dict[str, Any],
    slices: bytes,
    failed: Mapping[str, str],
) -> str:
    """Writes `detectors.md`, `.csv`, `.json`, `.png` and `detectors_slices.png`.

    Args:
        tables: one a family; figures of the second go to `detectors_<family>.png`.
        costs: by detector.
        specs: by detector.
        folder: of the report.
        about: how it was made.
        slices: the picture of maps.
        failed: reasons of the detectors that have no row.

    Returns:
        The tables.
    """
    text = _markdown(tables, costs, about, failed)
    write_bytes(folder / f"{REPORT}.md", text.encode())
    write_bytes(folder / f"{REPORT}.csv", csv_of(tables, costs, specs).encode())
    left_out = {table.family: list(table.left_out) for table in tables}
    rows, baselines = [], []
    for table in tables:
        for method, one in table.rows.items():
            values = {"kinds": table.family, **asdict(one)}
            if method not in table.detectors:
                baselines.append(values)
                continue
            spec = specs[method]
            known = {"unit": spec.unit, "title": spec.title}
            rows.append({**values, **known, **asdict(costs[method])})
    settings = {**about, "left_out": left_out}
    report = {"settings": settings, "rows": rows, "baselines": baselines, "failed": dict(failed)}
    write_json(folder / f"{REPORT}.json", _without_nan(report))
    for number, table in enumerate(tables):
        name = f"{REPORT}_{table.family}.png" if number else f"{REPORT}.png"
        drawn = [table.rows[detector].row for detector in table.detectors]
        write_bytes(folder / name, draw(drawn, [one.row for one in table.baselines]))
    write_bytes(folder / f"{REPORT}_slices.png", slices)
    return text


def _without_nan(values: Any) -> Any:
    """Plain values; JSON has no number for a figure that is not defined."""
    if isinstance(values, dict):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values


def _markdown(
    tables: Sequence[Table],
    costs: Mapping[str, Costs],
    about: Mapping[str, Any],
    failed: Mapping[str, str],
) -> str:
    lines: list[str] = []
    for table in tables:
        scans = f"{len(table.scans)} scan{'s' if len(table.scans) > 1 else ''}"
        lines += [f"{_FAMILIES[table.family]} ({scans})", ""]
        lines += [*_aurocs(table), "", *_further(table), "", *_by_change(table), ""]
    lines += [*_cost_lines(costs), "", _CASES_NOTE, _FOUND_NOTE, _CHANGE_NOTE]
    lines += [line for table in tables for line in _vector_lines(table)]
    seeds = f"{about['seeds']} run{'s' if about['seeds'] > 1 else ''} of each"
    lines.append(
        f"Budget: {about['budget']}; {seeds}; seed of the anomalies {about['anomaly_seed']}; "
        f"scans for {about['use']}. Nothing was tuned in this run: all other settings are the "
        f"detectors' defaults or those of {about['plans']}."
    )
    lines += _minutes_lines(about["minutes"], about["budget_minutes"])
    if about["budget_steps"]:
        lines.append(_STEPS_NOTE)
    if about["elsewhere"]:
        lines.append(f"Trained elsewhere, not under the budget: {', '.join(about['elsewhere'])}.")
    if any(plans != about["plans"] for plans in about["plan_of"].values()):
        lines.append(_predict_line(about["dataset"], about["plan_of"]))
    lines += [f"Failed: {name}: {reason}" for name, reason in failed.items()]
    return "\n".join(lines) + "\n"


def _lines(header: Sequence[str], rows: Iterator[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def _aurocs(table: Table) -> list[str]:
    first = table.detectors[0]
    kinds = table.rows[first].row.columns[:-1]

    def rows() -> Iterator[Sequence[str]]:
        for method, one in table.rows.items():
            of_kinds = [short(one.row.auroc[kind].value) for kind in kinds]
            less = _with_interval(one.differences[AUROC], signed=True)
            listed = "" if method == first or method not in table.detectors else less
            yield [method, *of_kinds, _with_interval(one.row.auroc[MEAN]), listed]

    return _lines(["detector", *kinds, "mean AUROC [95 %]", f"less {first} [95 %]"], rows())


def _further(table: Table) -> list[str]:
    titles = [title for title, _ in FURTHER.values()]

    def rows() -> Iterator[Sequence[str]]:
        for method, one in table.rows.items():
            figures = [_with_interval(one.figures[name][MEAN]) for name in FURTHER]
            yield [method, *figures, _with_interval(one.row.case_auroc[CASE_SCORE])]

    return _lines(["mean of the kinds [95 %]", *titles, "cases"], rows())


def _by_change(table: Table) -> list[str]:
    classes = list(table.shares)

    def rows() -> Iterator[Sequence[str]]:
        yield ["share of the voxels", *(f"{100 * table.shares[name]:.0f} %" for name in classes)]
        for method, one in table.rows.items():
            yield [method, *(_with_interval(one.changes[name]) for name in classes)]

    return _lines(["AUROC by change [95 %]", *classes], rows())


def _cost_lines(costs: Mapping[str, Costs]) -> list[str]:
    header = ["detector", "steps", "training, min", "s a scan", "MB", "parameters"]

    def rows() -> Iterator[Sequence[str]]:
        for name, one in costs.items():
            taken = " + ".join(
                f"{stage.partition(' ')[0]} {steps or 'fitted'}"
                for stage, steps in one.steps.items()
            )
            spent = one.training_seconds
            minutes = "-" if spent is None else f"{spent / 60:.1f}"
            size = [f"{one.megabytes:.1f}", f"{one.parameters / 1e6:.2f} M"]
            yield [name, taken, minutes, f"{one.seconds:.2f}", *size]

    return _lines(header, rows())


def _minutes_lines(given: Mapping[str, float | None], budget: float | None) -> list[str]:
    """What each detector got of a budget of minutes."""
    if budget is None:
        return []
    listed = ", ".join(f"{d} {'-' if m is None else f'{m:.2f}'}" for d, m in given.items())
    lines = [f"Minutes of steps given, by measured seconds a step: {listed}."]
    below = [d for d, m in given.items() if m is not None and m < (1 - _SLACK) * budget]
    if below:
        lines.append(
            f"Below the budget: {', '.join(below)}. A stage that is shared with a longer chain is "
            "trained for no more than the share of that chain."
        )
    above = [d for d, m in given.items() if m is not None and m > (1 + _SLACK) * budget]
    if above:
        lines.append(
            f"Above the budget: {', '.join(above)}. A stage that is shared was trained before "
            "they joined."
        )
    return lines


def _predict_line(dataset: str, plan_of: Mapping[str, str]) -> str:
    """How to predict with what was trained within the budget."""
    of_plan: dict[str, list[str]] = {}
    for detector, plans in plan_of.items():
        of_plan.setdefault(plans, []).append(detector)
    listed = "; ".join(f"{plans}: {', '.join(names)}" for plans, names in of_plan.items())
    command = f"screener_predict -d {int(dataset[7:10])} -p PLAN --detector NAME -i SCANS -o MAPS"
    return f"Predict with one of them by `{command}`, with its plan. {listed}."


def _vector_lines(table: Table) -> list[str]:
    """The case scores that are not made of a map."""
    lines = []
    for method in table.detectors:
        figures = table.rows[method].row.case_auroc
        others = {name: figure for name, figure in figures.items() if name != CASE_SCORE}
        if others:
            listed = ", ".join(f"{name} {_with_interval(f)}" for name, f in others.items())
            whole = all(name.startswith(IMAGE) for name in others)
            what = "a scan as a whole" if whole else "the mean descriptor of a scan"
            lines.append(f"Of {what}, {method}: {listed}.")
    return lines


def _with_interval(figure: Figure, signed: bool = False) -> str:
    def text(value: float) -> str:
        sign = ("+" if value >= 0 else "-") if signed else ""
        return sign + short(abs(value) if signed else value)

    if math.isnan(figure.value):
        return "-"
    if figure.low is None or figure.high is None:
        return text(figure.value)
    return f"{text(figure.value)} [{text(figure.low)}, {text(figure.high)}]"
