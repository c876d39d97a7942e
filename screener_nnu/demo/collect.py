"""Reads what the commands have written and makes the data of the page."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from screener_nnu.demo import figures
from screener_nnu.demo.phantoms import LESION_FRACTION
from screener_nnu.demo.report import MethodRow, Picture, Report, ShownCase, TimedStep
from screener_nnu.demo.settings import LABELLED, NORMAL_CASE, PRETRAINING, DemoPaths, DemoSize
from screener_nnu.demo.steps import Step
from screener_nnu.paths import begun_stages, finished_checkpoint, plan_file, results_folder
from screener_nnu.plans import DEFAULT_PLANS_NAME, VOLUMES, read_plan
from screener_nnu.preprocessing.volumes import read_array

_SHOWN_METHODS = ("student", "teacher")
_PACKAGES = ("screener_nnu", "nnunetv2", "torch", "nflows", "numpy", "scipy", "SimpleITK")


def collect_report(
    paths: DemoPaths, size: DemoSize, steps: Sequence[Step], seconds: Mapping[str, float]
) -> Report:
    """Gathers figures, pictures, times and the plan's reasons."""
    settings = read_plan(plan_file(PRETRAINING, DEFAULT_PLANS_NAME)).settings
    return Report(
        introduction=_introduction(size),
        rows=method_rows(json.loads((paths.evaluation / "summary.json").read_text())),
        cases=_shown_cases(paths),
        curves=_curves(),
        roc=Picture(
            (paths.evaluation / "curves.png").read_bytes(), "ROC, precision-recall and FROC"
        ),
        fine_tuning=_fine_tuning(),
        budget=f"{size.epochs} epochs of {size.iterations} iterations",
        steps=[TimedStep(s.title, s.command, seconds.get(s.name, 0.0)) for s in steps],
        environment=paths.environment,
        reasons=dict(settings.reasons),
        versions=_versions(),
        colours=figures.colour_stops(),
    )


def _introduction(size: DemoSize) -> str:
    return (
        f"No patient data here: {size.training_scans} CT phantoms of the trunk were computed, "
        f"{round(LESION_FRACTION * size.training_scans)} of them with lesions, but nobody says "
        "which. From these alone the "
        "chain of stages learned what tissue looks like at its place. Its anomaly maps were then "
        f"measured on {size.test_scans} other phantoms with annotated lesions (and one without), "
        "beside baselines that learn nothing. Training was cut to minutes on a CPU, so read "
        "the figures as those of a demonstration."
    )


def method_rows(summary: Mapping[str, Any]) -> list[MethodRow]:
    """Rows of the table from `summary.json` of `screener_evaluate`."""
    rows = []
    for method, values in summary["methods"].items():
        interval = values["intervals_95"].get("auroc", {})
        rows.append(
            MethodRow(
                method,
                _number(values["auroc"]),
                (_number(interval.get("low")), _number(interval.get("high"))),
                _number(values["auroc_fpr30"]),
                _number(values["average_precision"]),
                _number(values["best_dice"]),
            )
        )
    return rows


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _shown_cases(paths: DemoPaths) -> list[ShownCase]:
    """The best, a middle and the worst test scan of the student, and the normal one."""
    titles = _chosen_cases(paths.evaluation / "cases.csv")
    titles[NORMAL_CASE] = "Normal scan: nothing to find; slices of the student's highest score"
    cases = {name: _read_case(paths, name) for name in titles}
    windows = {m: figures.score_window(list(cases.values()), m) for m in _SHOWN_METHODS}
    return [ShownCase(titles[name], _slices(case, windows)) for name, case in cases.items()]


def _chosen_cases(table: Path) -> dict[str, str]:
    with table.open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["method"] == "student" and r["auroc"]]
    ranked = sorted(rows, key=lambda row: float(row["auroc"]), reverse=True)
    places = {0: "best", len(ranked) // 2: "middle", len(ranked) - 1: "worst"}
    return {
        ranked[i]["case"]: f"{ranked[i]['case']}: the student's {rank} test scan "
        f"(AUROC {float(ranked[i]['auroc']):.3f} on this scan)"
        for i, rank in places.items()
        if ranked
    }


def _read_case(paths: DemoPaths, name: str) -> figures.OverlayCase:
    image = SimpleITK.ReadImage(str(paths.test / "images" / f"{name}_0000.nii.gz"))
    x, y, z = image.GetSpacing()
    return figures.OverlayCase(
        SimpleITK.GetArrayFromImage(image),
        (z, y, x),
        _array(paths.maps("student") / f"{name}_body.nii.gz") > 0,
        _array(paths.test / "masks" / f"{name}.nii.gz") > 0,
        {m: _array(paths.maps(m) / f"{name}.nii.gz") for m in _SHOWN_METHODS},
    )


def _array(path: Path) -> NDArray[np.floating[Any]]:
    return read_array(path, path.name)


def _slices(case: figures.OverlayCase, windows: Mapping[str, tuple[float, float]]) -> list[Picture]:
    pictures = []
    for axis, plane in ((0, "axial"), (1, "coronal")):
        index = figures.shown_slice(case, axis, _SHOWN_METHODS[0])
        pictures.append(Picture(figures.draw_slice(case, axis, index), f"CT, {plane}"))
        pictures += [
            Picture(figures.draw_slice(case, axis, index, method, window), f"{method}, {plane}")
            for method, window in windows.items()
        ]
    return pictures


def _curves() -> list[Picture]:
    """One picture a stage, from the log in its checkpoint."""
    from screener_nnu.checkpoints import read_checkpoint
    from screener_nnu.trainers.stages import trainer_of

    pictures = []
    for stage in begun_stages(PRETRAINING, DEFAULT_PLANS_NAME):
        path = finished_checkpoint(PRETRAINING, stage, DEFAULT_PLANS_NAME)
        checkpoint = read_checkpoint(path)
        log = checkpoint["logging"]
        values = log["values"]
        spans = zip(values["epoch_end_timestamps"], values["epoch_start_timestamps"], strict=False)
        losses, name = values["train_losses"], trainer_of(stage).figure_name
        curve = figures.StageCurve(
            stage, name, losses, values["figures"], log["reference"], sum(e - b for e, b in spans)
        )
        caption = f"{stage}: {checkpoint['global_step']} steps, {curve.seconds:.0f} s"
        pictures.append(Picture(figures.draw_curve(curve), caption))
    return pictures


def _fine_tuning() -> dict[str, float]:
    """Mean validation Dice of each start."""
    found = {}
    for start in ("student", "scratch"):
        pattern = f"*_{start}__{VOLUMES}/fold_0/validation/summary.json"
        for path in sorted(results_folder(LABELLED).glob(pattern)):
            found[start] = _number(json.loads(path.read_text())["foreground_mean"]["Dice"])
    return found


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    found["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return found
