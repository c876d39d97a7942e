"""`lowshot.md`, `.json` and `.csv`."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.checkpoints import write_bytes
from screener_nnu.errors import ScreenerError
from screener_nnu.files import remove_half_written_of
from screener_nnu.finetuning.starts import SCRATCH
from screener_nnu.lowshot.curves import smooth
from screener_nnu.lowshot.design import LowShotRun, Setting
from screener_nnu.lowshot.figure import draw
from screener_nnu.lowshot.floor import Floors
from screener_nnu.lowshot.measure import Record
from screener_nnu.lowshot.statistics import Comparison, Estimate
from screener_nnu.lowshot.summary import Summary
from screener_nnu.ownership import OwnedFolder, own_folder
from screener_nnu.plans import write_json

_FILES = ("lowshot.md", "lowshot.csv", "lowshot.json", "lowshot.png")
_COLUMNS = (
    "training cases",
    "start",
    "mean [95 %]",
    "minus scratch [95 %]",
    "gain",
    "better / worse",
    "p",
    "p (Holm)",
    "effect",
    "epochs to scratch's end",
)
_NOTE = (
    "Means over cases, each averaged over folds and seeds; 95 % bootstrap intervals over cases. "
    "Scratch is stock nnU-Net's training of random weights; where it is not among the starts, a "
    "start is compared with random weights that are trained as it is, if there are some. "
    "p: Wilcoxon signed-rank test in pairs of cases, two-sided; Holm: corrected for all "
    "comparisons of a table. Effect: matched-pairs rank-biserial correlation, -1 to 1. Epochs: "
    "until the pseudo Dice, a mean over a tenth of the training, is as high as that of scratch in "
    "the end. Floors, with all foreground as one class: the central ball, and where asked for the "
    "voxels of the anomaly map above a threshold, each as suits the training cases best."
)


def write_report(
    folder: Path,
    summary: Summary,
    settings: Mapping[str, Any],
    runs: Sequence[LowShotRun],
    records: Sequence[Record],
    floors: Mapping[str, Floors],
    failures: Mapping[str, str],
) -> str:
    """Writes the report; returns its text.

    Args:
        folder: where to.
        summary: the figures.
        settings: what was asked for; plain values, with `dataset`, `nsd_tolerance_mm`, `unit`,
            mm or pixels, and `notes`, sentences about how the starts were made.
        runs: all trainings of the design.
        records: figures of the finished ones.
        floors: by their names.
        failures: reasons by the name of the training.
    """
    _take_over(folder)
    text = markdown(summary, settings, len(runs), failures)
    write_bytes(folder / "lowshot.md", text.encode())
    write_bytes(folder / "lowshot.csv", _csv(runs, records, floors).encode())
    write_json(folder / "lowshot.json", _plain(_values(summary, settings, runs, floors, failures)))
    write_bytes(folder / "lowshot.png", draw(summary, _tolerance(settings)))
    return text


def refuse_foreign_report(folder: Path) -> None:
    """Refuses a folder where files of somebody else have the names of a report; writes nothing.

    Raises:
        ScreenerError: there is one; the message names it and the way out.
    """
    owned = OwnedFolder(folder)
    if owned.is_new and _is_report(folder):
        return
    foreign = owned.foreign(folder / name for name in _FILES)
    if foreign:
        raise ScreenerError(
            f"{foreign[0]} is not ours, or was changed since we wrote it, and the report would "
            "replace it: move it away, or give another --report FOLDER"
        )


def _take_over(folder: Path) -> None:
    """Puts the folder under the rule of `ownership`, with the report of an earlier version."""
    owned = own_folder(folder)
    if owned.is_new and _is_report(folder):
        for path in (folder / name for name in _FILES):
            if path.is_file():
                owned.record(path)
    remove_half_written_of(folder, _FILES)


def _is_report(folder: Path) -> bool:
    """Whether the folder holds a report of ours."""
    try:
        values = json.loads((folder / "lowshot.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"settings", "rows", "trainings"} <= set(values)


def markdown(
    summary: Summary, settings: Mapping[str, Any], runs: int, failures: Mapping[str, str]
) -> str:
    """The tables of both figures, what was left out, and what failed."""
    lines = [
        f"# Low-shot benchmark of {settings['dataset']}",
        "",
        f"Folds: {settings['folds']}; seeds: {settings['seeds']}; {_budget(summary, settings)}; "
        f"source {settings['source']}, {settings['plans']}. {settings['finished']} of {runs} "
        "trainings are finished.",
        *settings["notes"],
    ]
    titles = {
        "dice": "Dice",
        "nsd": f"Normalised surface Dice, {_tolerance(settings)}",
    }
    for metric, title in titles.items():
        lines += ["", f"## {title}", "", *_table(summary, metric), *_left_out(summary, metric)]
    lines += ["", _NOTE]
    if failures:
        lines += ["", "## Failed", "", *(f"- {name}: {why}" for name, why in failures.items())]
    return "\n".join(lines) + "\n"


def _budget(summary: Summary, settings: Mapping[str, Any]) -> str:
    if summary.curves and not any(curve.values.size for curve in summary.curves):
        return "heads on frozen networks, which take no epochs"
    return f"{settings['epochs']} epochs of {settings['iterations']} iterations from every start"


def _tolerance(settings: Mapping[str, Any]) -> str:
    return f"{settings['nsd_tolerance_mm']:g} {settings.get('unit', 'mm')}"


def _table(summary: Summary, metric: str) -> list[str]:
    rows = summary.rows[metric]
    ends = {c.num_cases for c in summary.curves if c.start == SCRATCH and _has_end(c.values)}
    curves = [c for c in summary.curves if c.num_cases in ends and c.values.size]  # no epochs
    reached = {(c.num_cases, c.start): c.epochs_to_scratch for c in curves}
    best = {
        size: max(r.mean.value for r in rows if r.num_cases == size and r.start in summary.starts)
        for size in summary.tables[metric]
    }
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    for row in rows:
        mean = _with_interval(row.mean)
        if row.mean.value == best[row.num_cases]:
            mean = f"**{mean}**"
        key = (row.num_cases, row.start)
        epochs = "" if key not in reached else str(reached[key] or "never")
        cells = [str(row.num_cases), row.start, mean, *_comparison(row.against_scratch), epochs]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _has_end(curve: NDArray[np.float64]) -> bool:
    return curve.size > 0 and bool(np.isfinite(smooth(curve)[-1]))


def _comparison(found: Comparison | None) -> list[str]:
    if found is None:
        return [""] * 6
    return [
        _with_interval(found.difference, "+"),
        "-" if math.isnan(found.gain) else f"{found.gain:+.1%}",
        f"{found.better} / {found.worse}",
        _p_value(found.p),
        _p_value(found.p_holm),
        _text(found.effect, "+.2f"),
    ]


def _left_out(summary: Summary, metric: str) -> list[str]:
    """A sentence a size of the training set about what does not count."""
    lines = []
    for size, table in summary.tables[metric].items():
        parts = [f"{len(table.cases)} cases"]
        if table.undefined:
            parts.append(f"{table.undefined} left out, empty in reference and prediction")
        if table.unfinished:
            parts.append(f"{table.unfinished} pairs of fold and seed not finished by all starts")
        lines.append(f"- trained on {size}: {'; '.join(parts)}")
    return ["", *lines]


def _with_interval(found: Estimate, sign: str = "") -> str:
    low, high = (_text(value, f"{sign}.3f") for value in (found.low, found.high))
    return f"{_text(found.value, f'{sign}.3f')} [{low}, {high}]"


def _text(value: float, form: str) -> str:
    return "-" if math.isnan(value) else f"{value:{form}}".replace("0.", ".", 1)


def _p_value(p: float) -> str:
    return "<.001" if p < 0.001 else _text(p, ".3f")


def _csv(
    runs: Sequence[LowShotRun], records: Sequence[Record], floors: Mapping[str, Floors]
) -> str:
    indices = {(run.start, run.setting): run.training.fold for run in runs}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ["start", "num_cases", "fold", "seed", "splits_final_fold", "case", "dice", "nsd"]
    writer.writerow([*names, *(f"{name.replace(' ', '_')}_dice" for name in floors)])
    for r in records:
        setting = r.setting
        of_floors = [_of_case(floor, setting, r.case) for floor in floors.values()]
        figures = ["" if math.isnan(value) else value for value in (r.dice, r.nsd, *of_floors)]
        index = indices[r.start, setting]
        place = [setting.num_cases, setting.fold, setting.seed, index]
        writer.writerow([r.start, *place, r.case, *figures])
    return buffer.getvalue()


def _of_case(floor: Floors, setting: Setting, case: str) -> float:
    return floor[setting].dice.get(case, math.nan) if setting in floor else math.nan


def _values(
    summary: Summary,
    settings: Mapping[str, Any],
    runs: Sequence[LowShotRun],
    floors: Mapping[str, Floors],
    failures: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "settings": dict(settings),
        "rows": {metric: [asdict(row) for row in rows] for metric, rows in summary.rows.items()},
        "left_out": {
            metric: [
                {"num_cases": n, "undefined_cases": t.undefined, "unfinished_pairs": t.unfinished}
                for n, t in tables.items()
            ]
            for metric, tables in summary.tables.items()
        },
        "learning_curves": [asdict(curve) for curve in summary.curves],
        "floors": [
            {"floor": name, **asdict(setting), **asdict(floor)}
            for name, by_setting in floors.items()
            for setting, floor in by_setting.items()
        ],
        "trainings": [
            {
                "start": run.start,
                **asdict(run.setting),
                "folder": str(run.training.folder),
                "training_cases": run.cases["train"],
                "finished": run.training.finished,
            }
            for run in runs
        ],
        "failures": dict(failures),
    }


def _plain(value: Any) -> Any:
    """Values as JSON knows them: NaN becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value
