"""The picture of a benchmark: cases in pairs on the left, learning curves on the right."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from screener_nnu.lowshot.curves import smooth
from screener_nnu.lowshot.statistics import METRICS
from screener_nnu.lowshot.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Room of a group of starts, of which each takes one.
_GAP = 1.0
_LETTER = 0.075  # of the legend, inches
# Of the floors.
_DASHES = (":", "-.")


def draw(summary: Summary, tolerance: str) -> bytes:
    """The picture as PNG.

    Args:
        summary: figures of the benchmark.
        tolerance: of the surface Dice, with its unit.
    """
    from matplotlib import style

    # nnU-Net's trainer enlarges all letters of the process for a picture of its own.
    with style.context("default"):
        return _draw(summary, tolerance)


def _draw(summary: Summary, tolerance: str) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sizes = list(summary.tables["dice"])
    groups = max(1, len(sizes))
    width = 2.4 + 0.6 * groups * (len(summary.starts) + _GAP)
    figure = Figure(figsize=(width + 5.5, max(7.0, 2.3 * groups)), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[width, 5.5])[0]
    colours = _colours(summary.starts)
    titles = {"dice": "Dice", "nsd": f"surface Dice, {tolerance}"}
    for axes, metric in zip(left.subplots(2, 1, sharex=True), METRICS, strict=True):
        _pairs(axes, summary, metric, colours)
        axes.set_ylabel(f"{titles[metric]} of a case")
    longest = max(map(len, summary.starts + summary.floors))
    columns = max(1, min(3, int(width / (0.5 + _LETTER * longest))))
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": columns}
    left.legend(*_entries(left), **place, fontsize=9, frameon=False)
    panels = right.subplots(groups, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, size in zip(panels, sizes, strict=False):
        _curves(axes, summary, size, colours)
    right.supxlabel("epoch", fontsize=10)
    right.supylabel("pseudo Dice on validation patches", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _colours(starts: tuple[str, ...]) -> dict[str, Any]:
    from matplotlib import colormaps

    return {start: colormaps["tab10"](place % 10) for place, start in enumerate(starts)}


def _pairs(axes: Axes, summary: Summary, metric: str, colours: Mapping[str, Any]) -> None:
    """A column a start, dots of one case joined by a line; means with intervals beside them."""
    centres = []
    for group, (size, table) in enumerate(summary.tables[metric].items()):
        first = group * (len(summary.starts) + _GAP)
        places = [first + summary.starts.index(start) for start in table.starts]
        centres.append((sum(places) / len(places), f"{size} training cases"))
        axes.plot(places, table.values, color="0.75", linewidth=0.7, zorder=1)
        rows = {row.start: row.mean for row in summary.rows[metric] if row.num_cases == size}
        for start, place, values in zip(table.starts, places, table.values, strict=True):
            axes.scatter([place] * values.size, values, s=14, color=colours[start], alpha=0.5)
            mean = rows[start]
            reach = [[mean.value - mean.low], [mean.high - mean.value]]
            style: dict[str, Any] = {"fmt": "D", "markersize": 7, "capsize": 4, "linewidth": 2}
            style |= {"color": colours[start], "markeredgecolor": "black", "zorder": 4}
            axes.errorbar([place + 0.22], [mean.value], yerr=reach, label=start, **style)
        ends = [places[0] - 0.4, places[-1] + 0.4]
        for name, dashes in zip(summary.floors, _DASHES, strict=False):
            if name in rows:
                line: dict[str, Any] = {"color": "black", "linestyle": dashes, "label": name}
                axes.plot(ends, [rows[name].value] * 2, **line)
    axes.set_xticks([place for place, _ in centres], [label for _, label in centres])
    axes.set_ylim(-0.03, 1.03)
    axes.grid(axis="y", alpha=0.3)


def _entries(figure: Any) -> tuple[list[Any], list[str]]:
    """One legend entry a name."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _curves(axes: Axes, summary: Summary, size: int, colours: Mapping[str, Any]) -> None:
    """Each start's mean over its trainings, thin as logged and thick averaged over epochs."""
    from matplotlib.ticker import MaxNLocator

    for curve in (curve for curve in summary.curves if curve.num_cases == size):
        epochs = range(1, curve.values.size + 1)
        colour = colours[curve.start]
        axes.plot(epochs, curve.values, color=colour, linewidth=0.8, alpha=0.4)
        axes.plot(epochs, smooth(curve.values), color=colour, linewidth=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title(f"{size} training cases", fontsize=10)
    axes.grid(alpha=0.3)
