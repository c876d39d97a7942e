"""Draws the pooled ROC, precision-recall and FROC curves of all methods."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.baselines import is_baseline
from screener_nnu.evaluation.evaluate import Evaluation
from screener_nnu.evaluation.froc import FALSE_POSITIVES_PER_SCAN
from screener_nnu.evaluation.metrics import MAX_FPR, cumulate
from screener_nnu.evaluation.summarise import MethodResult
from screener_nnu.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 2000
_DASHES: list[Any] = [
    "--",
    "-.",
    ":",
    (0, (1, 3)),
    (0, (6, 2, 1, 2, 1, 2)),
    (0, (8, 3)),
    (0, (3, 6)),
]
_FEWEST, _MOST = FALSE_POSITIVES_PER_SCAN[0] / 2, FALSE_POSITIVES_PER_SCAN[-1] * 2


def plot_curves(evaluation: Evaluation, path: Path) -> None:
    """Draws three panels with one legend below: maps thick and solid, baselines thin and broken."""
    # matplotlib takes a second to import, which a table of figures should not wait for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(evaluation.methods) // 3)
    figure = Figure(figsize=(15, 5.4 + 0.24 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    roc, precision_recall, froc = figure.subplots(1, 3)
    names = list(evaluation.methods)
    styles = line_styles([n for n in names if not is_baseline(n)], filter(is_baseline, names))
    for method, style in styles.items():
        result = evaluation.methods[method]
        if 0 < result.figures["annotated"] < result.figures["voxels"]:
            fpr, tpr, precision = _voxel_curves(result)
            roc.plot(fpr, tpr, **style, label=_label(method, result))
            precision_recall.plot(tpr[1:], precision[1:], **style)
        if not np.isnan(result.sensitivity).any():
            froc.step(*_froc_steps(result), where="post", **style)
    _finish(roc, precision_recall, froc)
    handles, labels = roc.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def line_styles(maps: Iterable[str], baselines: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Line of each method: colours of their own for maps, a second set for baselines."""
    from matplotlib import colormaps

    strong = [colormaps["tab10"](place) for place in range(10)]
    soft = [colormaps["Dark2"](place) for place in range(8)]
    styles: dict[str, dict[str, Any]] = {}
    for place, method in enumerate(maps):
        line = ["-", (0, (5, 1))][place // len(strong) % 2]
        colour = strong[place % len(strong)]
        styles[method] = {"color": colour, "linestyle": line, "linewidth": 2.2, "zorder": 3}
    for place, method in enumerate(baselines):
        dash, colour = _DASHES[place % len(_DASHES)], soft[place % len(soft)]
        styles[method] = {"color": colour, "linestyle": dash, "linewidth": 1.1, "zorder": 2}
    return styles


def _label(method: str, result: MethodResult) -> str:
    """Name of a method with one figure of each panel."""
    shown = (("AUROC", "auroc"), ("AP", "average_precision"), ("FROC", "froc"))
    values = ((title, result.figures[name]) for title, name in shown)
    return f"{method}:  " + "  ".join(
        f"{title} {value:.3f}" for title, value in values if not np.isnan(value)
    )


def _finish(roc: Axes, precision_recall: Axes, froc: Axes) -> None:
    """Titles, axes, and the lines of chance and of the partial area."""
    roc.plot([0, 1], [0, 1], color="grey", linestyle=":", linewidth=1)
    roc.axvline(MAX_FPR, color="grey", linestyle=":", linewidth=1)
    roc.set(xlabel="false positive rate", ylabel="true positive rate", title="ROC of voxels")
    precision_recall.set(xlabel="recall", ylabel="precision", title="Precision-recall of voxels")
    froc.set(xlabel="false positives per scan", ylabel="sensitivity", title="FROC of lesions")
    for axes in (roc, precision_recall, froc):
        axes.set(xlim=(0, 1), ylim=(0, 1.01))
        axes.grid(color="0.92", linewidth=0.8)
    froc.set_xscale("log", base=2)
    froc.set(xlim=(_FEWEST, _MOST))
    froc.set_xticks(FALSE_POSITIVES_PER_SCAN, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])


def _froc_steps(result: MethodResult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Highest sensitivity with no more than each number of false positives per scan."""
    shown = result.false_positives <= _MOST
    order = np.argsort(result.false_positives[shown], kind="stable")
    false_positives = np.concatenate([[0.0], result.false_positives[shown][order], [_MOST]])
    sensitivity = np.concatenate([[0.0], result.sensitivity[shown][order], [0.0]])
    return np.maximum(false_positives, _FEWEST), np.maximum.accumulate(sensitivity)


def _voxel_curves(
    result: MethodResult,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """False positive rate, true positive rate and precision, thinned evenly along the curve."""
    hits = np.concatenate([[0.0], cumulate(result.pooled.positive)])
    false_alarms = np.concatenate([[0.0], cumulate(result.pooled.negative)])
    tpr, fpr = hits / hits[-1], false_alarms / false_alarms[-1]
    along = np.searchsorted(tpr + fpr, np.linspace(0, 2, _POINTS))
    kept = np.unique(np.append(np.clip(along, 0, tpr.size - 1), [0, tpr.size - 1]))
    precision = hits[kept] / np.maximum(hits + false_alarms, 1)[kept]
    return fpr[kept], tpr[kept], precision
