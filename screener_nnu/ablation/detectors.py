"""Any detectors of one plan in one table, compared in pairs on the same scans."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from screener_nnu.ablation.ablate import open_comparison
from screener_nnu.ablation.figures import COLUMNS, Figure, Row, difference, table_row
from screener_nnu.ablation.report import draw, short
from screener_nnu.ablation.scoring import CASE_SCORE, Judged, judge_detector
from screener_nnu.case_score import IMAGE
from screener_nnu.checkpoints import read_checkpoint, write_bytes
from screener_nnu.descriptors import PRETEXT
from screener_nnu.detectors import IGD, ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.inference.models import trained_stages
from screener_nnu.inference.volume import score_map
from screener_nnu.paths import dataset_name, finished_checkpoint, plan_file
from screener_nnu.plans import TEACHER, read_plan, write_json
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.trainers.detector import stages_of
from screener_nnu.trainers.run import train_stage
from screener_nnu.trainers.stage_logger import training_seconds

#: First part of the names of the report's files.
REPORT = "detectors"
_TIMED_SCANS = 3


@dataclass(frozen=True)
class Compared:
    """One detector of the table.

    Attributes:
        row: figures on synthetic anomalies.
        difference: of the mean AUROC to the first detector, on the same draws of scans.
        seconds: to score a prepared scan, the median of a few, on the device and its processors.
        megabytes: of weights and of what was fitted.
        parameters: of all its networks, whoever trained them.
        training_seconds: of all trained stages that it is made of, alone or shared; None where one
            of them, of an earlier version, does not say.
        unit: of the scores.
    """

    row: Row
    difference: Figure
    seconds: float
    megabytes: float
    parameters: int
    training_seconds: float | None
    unit: str


def compare_detectors(
    dataset: str,
    plans: str,
    names: Sequence[str],
    use: str,
    seed: int,
    device: torch.device,
    folder: Path,
) -> str:
    """Trains what is missing, judges all detectors on synthetic anomalies and writes the report.

    Args:
        dataset: number or name.
        plans: plan that all of them belong to.
        names: of `DETECTORS`; the others are compared with the first.
        use: `test` or `validation`, the scans of the split that get anomalies.
        seed: of the anomalies.
        device: to train and score on.
        folder: of the report and of what is kept for the next run.

    Returns:
        The table.
    """
    models = [ModelRef(dataset_name(dataset), plans, name) for name in dict.fromkeys(names)]
    anomalies, baselines = open_comparison(models[0].dataset, plans, use, seed, folder)
    for model in models:
        for stage, own_plans in stages_of(model):
            train_stage(model.dataset, stage, own_plans, device)
    judged: dict[str, Judged] = {}
    costs: dict[str, tuple[float, float, int, float | None]] = {}
    for model in models:
        loaded = model.load(device)
        judged[model.detector] = judge_detector(model, loaded, anomalies, device, folder / "counts")
        costs[model.detector] = (
            _seconds(loaded, anomalies.cases, anomalies.names, device),
            _megabytes(loaded.module),
            sum(p.numel() for p in loaded.module.parameters()),
            _training_seconds(model),
        )
    first = judged[models[0].detector]
    compared = [
        Compared(
            table_row(model.detector, [judged[model.detector]]),
            difference(judged[model.detector], first),
            *costs[model.detector],
            model.spec.unit,
        )
        for model in models
    ]
    about = {"dataset": models[0].dataset, "plans": plans, "use": use, "anomaly_seed": seed}
    return _write(compared, baselines, folder, {**about, "scans": list(anomalies.names)})


def _seconds(
    loaded: LoadedDetector, cases: CaseFolder, names: Sequence[str], device: torch.device
) -> float:
    spent = []
    for case in names[:_TIMED_SCANS]:
        images = cases.read(case, "hu"), cases.read(case, "equalised")
        begun = time.perf_counter()
        score_map(loaded.module, *images, loaded.plan, device, cases.read(case, "body"))
        spent.append(time.perf_counter() - begun)
    return float(np.median(spent))


def _megabytes(module: torch.nn.Module) -> float:
    return sum(v.numel() * v.element_size() for v in module.state_dict().values()) / 1e6


def _training_seconds(model: ModelRef) -> float | None:
    settings = read_plan(plan_file(model.dataset, model.trained_plans)).settings
    stages = [(model.stage, model.trained_plans)]
    if model.stage == "density":
        stages = trained_stages(model.trained_plans, settings)
    elif model.stage == IGD:
        sources = dict.fromkeys(settings.igd.sources(model.trained_plans).values())
        stages = [*((PRETEXT, plans) for plans in sources), *stages]
    elif model.stage == "distillation" and settings.distillation.target == TEACHER:
        teacher = settings.distillation.density_plans or model.plans
        of_teacher = read_plan(plan_file(model.dataset, teacher)).settings
        stages = [*trained_stages(teacher, of_teacher), *stages]
    seconds = []
    for stage, plans in stages:
        log = read_checkpoint(finished_checkpoint(model.dataset, stage, plans))["logging"]
        seconds.append(training_seconds(log["values"]))
    known = [one for one in seconds if one is not None]
    return sum(known) if len(known) == len(seconds) else None


def _write(
    compared: Sequence[Compared], baselines: Sequence[Row], folder: Path, settings: dict[str, Any]
) -> str:
    """Writes `detectors.md`, `.csv`, `.json` and `.png`; returns the table."""
    table = _table(compared, baselines)
    rows = [one.row for one in compared]
    write_bytes(folder / f"{REPORT}.md", table.encode())
    write_bytes(folder / f"{REPORT}.csv", _csv(compared, baselines).encode())
    values = {
        "settings": settings,
        "rows": [asdict(one) for one in compared],
        "baselines": [asdict(row) for row in baselines],
    }
    write_json(folder / f"{REPORT}.json", values)
    write_bytes(folder / f"{REPORT}.png", draw(rows, baselines))
    return table


def _table(compared: Sequence[Compared], baselines: Sequence[Row]) -> str:
    first = compared[0].row.method
    header = ["detector", *COLUMNS[:-1], "mean [95 %]", "@0.3", f"less {first} [95 %]"]
    header += ["cases [95 %]", "s a scan", "MB", "parameters", "training, min"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for one in compared:
        less = "" if one.row.method == first else _with_interval(one.difference, signed=True)
        costs = [f"{one.seconds:.2f}", f"{one.megabytes:.1f}", f"{one.parameters / 1e6:.2f} M"]
        seconds = one.training_seconds
        costs.append("-" if seconds is None else f"{seconds / 60:.1f}")
        cases = _with_interval(one.row.case_auroc[CASE_SCORE])
        lines.append("| " + " | ".join([*_figures(one.row), less, cases, *costs]) + " |")
    for row in baselines:
        cases = _with_interval(row.case_auroc[CASE_SCORE])
        lines.append("| " + " | ".join([*_figures(row), "", cases, *[""] * 4]) + " |")
    return "\n".join([*lines, "", _CASES_NOTE, *_vector_lines(compared)]) + "\n"


_CASES_NOTE = (
    "cases: AUROC of the case score, scans with anomalies of a kind against the same scans without."
)


def _vector_lines(compared: Sequence[Compared]) -> list[str]:
    """The case scores that are not made of a map."""
    lines = []
    for one in compared:
        others = {name: f for name, f in one.row.case_auroc.items() if name != CASE_SCORE}
        if others:
            listed = ", ".join(f"{name} {_with_interval(f)}" for name, f in others.items())
            whole = all(name.startswith(IMAGE) for name in others)
            what = "a scan as a whole" if whole else "the mean descriptor of a scan"
            lines.append(f"Of {what}, {one.row.method}: {listed}.")
    return lines


def _figures(row: Row) -> list[str]:
    kinds = [short(row.auroc[name].value) for name in COLUMNS[:-1]]
    mean = _with_interval(row.auroc["mean"])
    return [row.method, *kinds, mean, short(row.auroc_fpr30["mean"].value)]


def _with_interval(figure: Figure, signed: bool = False) -> str:
    def text(value: float) -> str:
        sign = ("+" if value >= 0 else "-") if signed else ""
        return sign + short(abs(value) if signed else value)

    if figure.low is None or figure.high is None:
        return text(figure.value)
    return f"{text(figure.value)} [{text(figure.low)}, {text(figure.high)}]"


def _csv(compared: Sequence[Compared], baselines: Sequence[Row]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    figures = [f"auroc_{name}{end}" for name in COLUMNS for end in ("", "_low", "_high")]
    ends = ["difference", "difference_low", "difference_high", "seconds", "megabytes"]
    ends += ["parameters", "training_seconds"]
    cases = [f"case_auroc{end}" for end in ("", "_low", "_high")]
    writer.writerow(["method", "unit", *figures, *cases, *ends])
    for one in compared:
        less = (one.difference.value, one.difference.low, one.difference.high)
        costs = (one.seconds, one.megabytes, one.parameters, one.training_seconds)
        writer.writerow([one.row.method, one.unit, *_values(one.row), *less, *costs])
    for row in baselines:
        writer.writerow([row.method, "", *_values(row)])
    return buffer.getvalue()


def _values(row: Row) -> list[float | None]:
    found = [*(row.auroc[name] for name in COLUMNS), row.case_auroc[CASE_SCORE]]
    return [value for one in found for value in (one.value, one.low, one.high)]
