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

from screener_nnu.ablation.anomaly_store import AnomalyStore
from screener_nnu.ablation.figures import COLUMNS, Figure, Row, difference, table_row
from screener_nnu.ablation.report import draw, short
from screener_nnu.ablation.scoring import Judged, judge_baselines, judge_detector
from screener_nnu.checkpoints import write_bytes
from screener_nnu.detectors import ModelRef
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.evaluation.training_histogram import training_histogram
from screener_nnu.inference.volume import score_map
from screener_nnu.paths import cases_folder, dataset_name, plan_file
from screener_nnu.plans import read_plan, write_json
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.trainers.detector import stages_of
from screener_nnu.trainers.run import train_stage

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
        unit: of the scores.
    """

    row: Row
    difference: Figure
    seconds: float
    megabytes: float
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
    settings = read_plan(plan_file(models[0].dataset, plans)).settings
    stored = CaseFolder(cases_folder(models[0].dataset, settings.data_identifier))
    anomalies = AnomalyStore(
        stored, getattr(settings.split, use), settings, seed, folder / "anomalies"
    )
    anomalies.fill()
    for model in models:
        for stage, own_plans in stages_of(model):
            train_stage(model.dataset, stage, own_plans, device)
    judged: dict[str, Judged] = {}
    costs: dict[str, tuple[float, float]] = {}
    for model in models:
        loaded = model.load(device)
        judged[model.detector] = judge_detector(model, loaded, anomalies, device, folder / "counts")
        costs[model.detector] = (
            _seconds(loaded, stored, anomalies.names, device),
            _megabytes(loaded.module),
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
    histogram = training_histogram(models[0].dataset)
    counts = judge_baselines(anomalies, histogram, folder / "counts")
    baselines = [table_row(name, [one]) for name, one in counts.items()]
    baselines.sort(key=lambda row: row.auroc["mean"].value, reverse=True)
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
    header += ["s a scan", "MB"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for one in compared:
        less = "" if one.row.method == first else _with_interval(one.difference, signed=True)
        costs = [f"{one.seconds:.2f}", f"{one.megabytes:.1f}"]
        lines.append("| " + " | ".join([*_figures(one.row), less, *costs]) + " |")
    lines += ["| " + " | ".join([*_figures(row), "", "", ""]) + " |" for row in baselines]
    return "\n".join(lines) + "\n"


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
    writer.writerow(["method", "unit", *figures, *ends])
    for one in compared:
        less = (one.difference.value, one.difference.low, one.difference.high)
        writer.writerow(
            [one.row.method, one.unit, *_values(one.row), *less, one.seconds, one.megabytes]
        )
    for row in baselines:
        writer.writerow([row.method, "", *_values(row)])
    return buffer.getvalue()


def _values(row: Row) -> list[float | None]:
    found = [row.auroc[name] for name in COLUMNS]
    return [value for one in found for value in (one.value, one.low, one.high)]
