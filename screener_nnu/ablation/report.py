"""Table and picture of an ablation."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from screener_nnu.ablation.figures import MEAN, Row
from screener_nnu.checkpoints import write_bytes
from screener_nnu.files import OLD_SECONDS, remove_half_written, remove_half_written_of
from screener_nnu.ownership import own_folder
from screener_nnu.plans import write_json


def ablation_files(folder: Path) -> list[Path]:
    """Everything that an ablation writes, the JSON file first."""
    return [folder / f"ablation.{ending}" for ending in ("json", "md", "csv", "png")]


def own_report(folder: Path, report: Sequence[Path]) -> None:
    """Puts the folder of an ablation or a comparison under the rule of `ownership`.

    What an earlier version has written is ours where its report is.

    Args:
        folder: of the report.
        report: its files, the JSON file first.

    Raises:
        ScreenerError: a file of a report is there and not ours.
    """
    owned = own_folder(folder)
    with suppress(OSError, ValueError, TypeError):
        if {"settings", "rows"} <= set(json.loads(report[0].read_text(encoding="utf-8"))):
            owned.adopt([*report, *folder.glob("anomalies/*.npz"), *folder.glob("counts/*.npz")])
    owned.refuse_foreign(report)
    remove_half_written_of(folder, [path.name for path in report])
    for name in ("anomalies", "counts"):
        remove_half_written(folder / name, r".+\.npz", OLD_SECONDS)


def write_ablation(
    cells: Sequence[Row], baselines: Sequence[Row], folder: Path, settings: dict[str, Any]
) -> str:
    """Writes `ablation.md`, `.csv`, `.json` and `.png`; returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [*cells, *baselines]
    table = markdown_table(cells, baselines)
    write_bytes(folder / "ablation.md", table.encode())
    write_bytes(folder / "ablation.csv", _csv(rows).encode())
    values = {"settings": settings, "rows": [asdict(row) for row in rows]}
    write_json(folder / "ablation.json", values)
    write_bytes(folder / "ablation.png", draw(cells, baselines))
    return table


def markdown_table(cells: Sequence[Row], baselines: Sequence[Row]) -> str:
    """AUROC by kind, the mean with its interval, and the spread over seeds."""
    columns = [*(cells or baselines)[0].columns[:-1], "mean [95 %]", "@0.3", "seeds", "NLL"]
    header = ["loss/condition/density", *columns]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += [_line(row, _best(cells)) for row in cells]
    lines += [_line(row, _best(baselines)) for row in baselines]
    return "\n".join(lines) + f"\n\n{_NLL_NOTE}\n"


_NLL_NOTE = (
    "NLL: held-out negative log-likelihood of standardised descriptors, in nats. It compares rows "
    "of one loss and seed only; across descriptors it means nothing."
)


def _best(rows: Sequence[Row]) -> dict[str, float]:
    columns = rows[0].columns if rows else ()
    return {name: max(row.auroc[name].value for row in rows) for name in columns}


def _line(row: Row, best: dict[str, float]) -> str:
    entries = []
    for name, figure in row.auroc.items():
        text = short(figure.value)
        if figure.value == best[name]:
            text = f"**{text}**"
        if name == MEAN and figure.low is not None and figure.high is not None:
            text += f" [{short(figure.low)}, {short(figure.high)}]"
        entries.append(text)
    seeds = ", ".join(short(value) for value in row.seeds) if len(row.seeds) > 1 else ""
    nll = "" if row.nll is None or math.isnan(row.nll) else f"{row.nll:.2f}"
    cells = [row.method, *entries, short(row.auroc_fpr30[MEAN].value), seeds, nll]
    return "| " + " | ".join(cells) + " |"


def short(value: float) -> str:
    """Three digits without the zero before them."""
    return f"{value:.3f}".removeprefix("0")


def _csv(rows: Sequence[Row]) -> str:
    buffer = io.StringIO()
    of = rows[0].columns
    names = [f"{figure}_{name}" for figure in ("auroc", "auroc_fpr30") for name in of]
    columns = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "seeds", "nll", *columns])
    for row in rows:
        figures = [group[name] for group in (row.auroc, row.auroc_fpr30) for name in of]
        values = [value for figure in figures for value in (figure.value, figure.low, figure.high)]
        # None, where there is no such figure, becomes an empty field.
        writer.writerow([row.method, len(row.seeds), row.nll, *values])
    return buffer.getvalue()


def draw(cells: Sequence[Row], baselines: Sequence[Row]) -> bytes:
    """One panel a kind and one for the mean: points with intervals, the best baseline as a line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    height, columns = 1.4 + 0.3 * len(cells), cells[0].columns
    figure = Canvas(figsize=(3.2 + 1.9 * len(columns), height), layout="constrained")
    panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    places = list(range(len(cells)))[::-1]
    for panel, name in zip(panels, columns, strict=True):
        found = [row.auroc[name] for row in cells]
        values = [figure.value for figure in found]
        reach = [
            [0.0 if figure.low is None else figure.value - figure.low for figure in found],
            [0.0 if figure.high is None else figure.high - figure.value for figure in found],
        ]
        panel.errorbar(values, places, xerr=reach, fmt="o", markersize=5, capsize=2)
        if baselines:
            best = max(baselines, key=lambda row: row.auroc[name].value)
            label = f"best without learning:\n{best.method}"
            panel.axvline(best.auroc[name].value, color="tab:red", linestyle="--", label=label)
            panel.legend(fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.08), frameon=False)
        panel.axvline(0.5, color="gray", linewidth=0.8)
        panel.set_title(name, fontsize=10)
        panel.grid(alpha=0.3)
    panels[0].set_yticks(places, [row.method for row in cells])
    figure.supxlabel("voxel AUROC, 95 % interval over scans", fontsize=10)
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
