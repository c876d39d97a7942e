"""Writes the figures of an evaluation: JSON, CSV, curves, and tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from screener_nnu.csv_files import write_csv
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.bins import BINS_FILE, Bins
from screener_nnu.evaluation.case_report import CASE_FILES
from screener_nnu.evaluation.evaluate import Evaluation
from screener_nnu.evaluation.metrics import METRICS, METRICS_AT_THRESHOLD
from screener_nnu.evaluation.plots import plot_curves
from screener_nnu.evaluation.records import HISTOGRAMS
from screener_nnu.evaluation.summarise import PAPER, figure_names
from screener_nnu.evaluation.tables import MOST_NAMED, aligned, cell, named, summarised, undefined
from screener_nnu.files import OLD_SECONDS, remove_half_written, remove_half_written_of
from screener_nnu.ownership import own_folder
from screener_nnu.plans import write_json

_FILES = ("cases.csv", "pooled.csv", "curves.png", "summary.json", *CASE_FILES)
_CHOSEN_COLUMNS = {"dice_k1": "Dice@1", "dice_k5": "Dice@5", "dice_k10": "Dice@10"}
_LESION_COLUMNS = {"aupro_fpr30": "AUPRO@0.3", "froc": "FROC", "case_auroc": "case AUROC"}
_PAPER_COLUMNS = {paper: f"{METRICS[name].title} (paper protocol)" for name, paper in PAPER.items()}


def own_evaluation(folder: Path) -> None:
    """Puts the folder of an evaluation under the rule of `ownership`.

    What an earlier version wrote is ours where its bins are.

    Raises:
        ScreenerError: a file that an evaluation writes is there and not ours.
    """
    owned = own_folder(folder)
    written = [folder / name for name in (*_FILES, BINS_FILE)]
    with suppress(ScreenerError):
        Bins.load(folder / BINS_FILE)
        owned.adopt([*written, *(folder / HISTOGRAMS).rglob("*.npz")])
    owned.refuse_foreign(written)
    remove_half_written_of(folder, (*_FILES, BINS_FILE))
    for method in (folder / HISTOGRAMS).glob("*"):
        remove_half_written(method, r".+\.npz", OLD_SECONDS)


def write_report(
    evaluation: Evaluation, folder: Path, settings: Mapping[str, Any] | None = None
) -> str:
    """Writes `summary.json`, `cases.csv`, `pooled.csv` and `curves.png`.

    Args:
        evaluation: the figures.
        folder: where to write; made when missing.
        settings: what was evaluated and how, kept in the summary.

    Returns:
        Tables of the pooled figures for the terminal.
    """
    names = figure_names(evaluation.protocol)
    write_csv(folder / "cases.csv", ["case", "method", *names], _cells(_case_rows(evaluation)))
    # The score of a case, and the spread of Dice over draws, have no interval over cases.
    ranged = list(dict.fromkeys(n for r in evaluation.methods.values() for n in r.intervals))
    ends = [f"{name}_{end}" for name in ranged for end in ("low", "high")]
    columns = ["method", "cases", *names, *ends]
    write_csv(folder / "pooled.csv", columns, _cells(_pooled_rows(evaluation)))
    plot_curves(evaluation, folder / "curves.png")
    # The summary comes last: where it is, the evaluation is finished.
    write_json(folder / "summary.json", _summary(evaluation, settings or {}))
    return format_table(evaluation)


def _case_rows(evaluation: Evaluation) -> Iterable[dict[str, Any]]:
    for method, result in evaluation.methods.items():
        for case, figures in result.cases.items():
            yield {"case": case, "method": method, **figures}


def _pooled_rows(evaluation: Evaluation) -> Iterable[dict[str, Any]]:
    for method, result in evaluation.methods.items():
        ends = {}
        for name, interval in result.intervals.items():
            ends[f"{name}_low"], ends[f"{name}_high"] = interval.low, interval.high
        yield {"method": method, "cases": len(result.cases), **result.figures, **ends}


def _cells(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows of a table, where a figure that is undefined is an empty cell."""
    for row in rows:
        yield {key: "" if undefined(value) else value for key, value in row.items()}


def _summary(evaluation: Evaluation, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the curves, with null for what is undefined, as JSON knows no NaN."""
    methods = {}
    for method, result in evaluation.methods.items():
        methods[method] = {
            "cases": len(result.cases),
            **summarised(result.figures, result.intervals),
        }
    return {
        "settings": {**settings, "protocol": evaluation.protocol},
        "methods": methods,
        "cases": sorted(next(iter(evaluation.methods.values())).cases),
        "skipped": evaluation.skipped,
        "notes": evaluation.notes,
        "undefined": evaluation.undefined,
    }


def format_table(evaluation: Evaluation) -> str:
    """Pooled figures of each method as plain text, with their 95 % intervals over cases."""
    pooled = [result.figures for result in evaluation.methods.values()]
    given = any(figures["threshold"] != figures["best_threshold"] for figures in pooled)
    # Without a threshold chosen elsewhere these columns would only repeat the best ones.
    metrics = {**METRICS, **METRICS_AT_THRESHOLD}
    repeated = () if given else ("dice", "iou")
    voxels = {name: m.title for name, m in metrics.items() if name not in repeated}
    defined = {
        name: title
        for name, title in {**_CHOSEN_COLUMNS, **_LESION_COLUMNS}.items()
        if name not in evaluation.undefined
    }
    blocks = [voxels, defined, *([_PAPER_COLUMNS] if evaluation.protocol == "paper" else [])]
    lines = []
    for columns in blocks:
        lines += [*_table(evaluation, columns), ""]
    lines += [f"left out {case}: {reason}" for case, reason in evaluation.skipped.items()]
    lines += _notes(evaluation.notes)
    lines += [f"no {name}: {reason}" for name, reason in evaluation.undefined.items()]
    return "\n".join(line.rstrip() for line in lines).rstrip()


def _notes(notes: Mapping[str, str]) -> list[str]:
    """Remarks on cases, one line for many with the same one."""
    alike: dict[str, list[str]] = {}
    for case, note in notes.items():
        alike.setdefault(note, []).append(case)
    lines = []
    for note, cases in alike.items():
        if len(cases) > MOST_NAMED:
            lines.append(f"note on {named(cases)}: {note}")
        else:
            lines += [f"note on {case}: {note}" for case in cases]
    return lines


def _table(evaluation: Evaluation, columns: Mapping[str, str]) -> list[str]:
    """Lines of one table."""
    rows = [["method", "cases", *columns.values()]]
    for method, result in evaluation.methods.items():
        cells = [cell(result.figures[name], result.intervals.get(name)) for name in columns]
        rows.append([method, str(len(result.cases)), *cells])
    return aligned(rows)
