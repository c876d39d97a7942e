"""Voxel-level metrics from score histograms.

All functions read counts `(..., K)` in bins of rising score and treat the scores within a bin as
tied; leading axes (such as bootstrap samples) are kept. A metric that is undefined, because there
are no annotated voxels or nothing else, is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.histograms import CaseHistogram

FloatArray = NDArray[np.float64]
MAX_FPR = 0.3


def cumulate(counts: NDArray[np.number]) -> FloatArray:
    """Voxels at or above each bin, from the highest bin down, `(..., K)` in falling score."""
    return np.cumsum(counts[..., ::-1], axis=-1, dtype=np.float64)


def area_under_roc(
    positive: NDArray[np.number], negative: NDArray[np.number], max_fpr: float = 1.0
) -> FloatArray:
    """Area under the ROC curve up to a false positive rate, divided by that rate.

    Args:
        positive: annotated voxels a bin `(..., K)`.
        negative: other voxels a bin `(..., K)`.
        max_fpr: where to stop; the curve is linear between its points.

    Returns:
        Areas `(...)` in [0, 1]. Not the McClish-standardised area of `roc_auc_score(max_fpr=)`.
    """
    if max_fpr >= 1:
        return _share_of_ordered_pairs(positive, negative)
    tpr = _rate(cumulate(positive))
    fpr = _rate(cumulate(negative))
    tpr_before = np.concatenate([np.zeros_like(tpr[..., :1]), tpr[..., :-1]], axis=-1)
    fpr_before = np.concatenate([np.zeros_like(fpr[..., :1]), fpr[..., :-1]], axis=-1)
    step = fpr - fpr_before
    width = np.clip(max_fpr - fpr_before, 0.0, step)
    slope = np.divide(tpr - tpr_before, step, out=np.zeros_like(step), where=step > 0)
    area = np.sum(width * (tpr_before + 0.5 * slope * width), axis=-1) / max_fpr
    defined = np.isfinite(tpr[..., -1]) & np.isfinite(fpr[..., -1])
    return np.where(defined, area, np.nan)


def _share_of_ordered_pairs(
    positive: NDArray[np.number], negative: NDArray[np.number]
) -> FloatArray:
    """Of pairs of an annotated and another voxel, those in order; ties are worth a half."""
    above, below = (np.asarray(counts, np.float64) for counts in (positive, negative))
    # Whole counts stay whole up to the division.
    ordered = np.einsum("...k,...k->...", above, np.cumsum(below, axis=-1) - below / 2)
    pairs = above.sum(axis=-1) * below.sum(axis=-1)
    return np.divide(ordered, pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


def _rate(cumulated: FloatArray) -> FloatArray:
    """Cumulated counts as shares of the total, NaN where the total is zero."""
    total = cumulated[..., -1:]
    return np.divide(cumulated, total, out=np.full_like(cumulated, np.nan), where=total > 0)


def weighted_auroc(
    scores: Sequence[float] | NDArray[np.floating],
    positive: NDArray[np.number],
    negative: NDArray[np.number],
) -> FloatArray:
    """Exact area under the ROC curve of scores that stand for several voxels or cases each.

    Args:
        scores: `(n,)`.
        positive: how often each counts as annotated `(..., n)`, not necessarily whole.
        negative: how often as not annotated `(..., n)`.

    Returns:
        Areas `(...)`, NaN where one of the two kinds is missing.
    """
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores)[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] > ordered[:-1]]))
    above, below = (
        np.add.reduceat(np.asarray(counts, np.float64)[..., order], first, axis=-1)
        for counts in (positive, negative)
    )
    return area_under_roc(above, below)


def average_precision(positive: NDArray[np.number], negative: NDArray[np.number]) -> FloatArray:
    """Average precision, `sum_n (R_n - R_{n-1}) P_n` over bins of falling score.

    The definition of `sklearn.metrics.average_precision_score`, each bin being one threshold.

    Args:
        positive: annotated voxels a bin `(..., K)`.
        negative: other voxels a bin `(..., K)`.
    """
    hits = cumulate(positive)
    found = hits + cumulate(negative)
    precision = np.divide(hits, found, out=np.zeros_like(hits), where=found > 0)
    total = hits[..., -1]
    weighted = np.sum(positive[..., ::-1] * precision, axis=-1)
    return np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0)


def dice_curve(positive: NDArray[np.number], negative: NDArray[np.number]) -> FloatArray:
    """Dice `2 TP / (2 TP + FP + FN)` when voxels in bin `k` and above are positive, `(..., K)`."""
    hits = cumulate(positive)[..., ::-1]
    false_alarms = cumulate(negative)[..., ::-1]
    total = hits[..., :1]
    size = hits + false_alarms + total
    return np.divide(2.0 * hits, size, out=np.full_like(hits, np.nan), where=total > 0)


def best_dice(positive: NDArray[np.number], negative: NDArray[np.number]) -> FloatArray:
    """Highest Dice over all thresholds `(...)` (optimistic: it has seen the annotation)."""
    return dice_curve(positive, negative).max(axis=-1)


def dice_above(
    positive: NDArray[np.number], negative: NDArray[np.number], first: int
) -> FloatArray:
    """Dice `(...)` when bin `first` and those above are positive; above all bins it is zero."""
    curve = dice_curve(positive, negative)
    return curve[..., first] if first < curve.shape[-1] else 0.0 * curve[..., 0]


def iou_of(dice: FloatArray) -> FloatArray:
    """Intersection over union (Jaccard index) of the same voxels as a Dice, `D / (2 - D)`."""
    return dice / (2.0 - dice)


def best_iou(positive: NDArray[np.number], negative: NDArray[np.number]) -> FloatArray:
    """Highest intersection over union over all thresholds `(...)`, as optimistic as that Dice."""
    return iou_of(best_dice(positive, negative))


def iou_above(positive: NDArray[np.number], negative: NDArray[np.number], first: int) -> FloatArray:
    """Intersection over union `(...)` when bin `first` and those above are positive."""
    return iou_of(dice_above(positive, negative, first))


def best_bin(dice: NDArray[np.float64]) -> NDArray[np.intp]:
    """Bin of the highest Dice `(...)`; of equal ones the highest, so that it is an occupied one."""
    filled = np.where(np.isnan(dice), -1.0, dice)
    return dice.shape[-1] - 1 - np.argmax(filled[..., ::-1], axis=-1)


def lowest_above(threshold: float) -> np.float32:
    """The lowest score above a threshold: voxels above it are positive, as in a prediction."""
    return np.nextafter(np.float32(threshold), np.float32(np.inf))


def highest_below(score: np.float32) -> float:
    """The highest threshold that a score is above."""
    return float(np.nextafter(score, np.float32(-np.inf)))


def threshold_bin(edges: NDArray[np.float32], threshold: float) -> int:
    """First bin that lies wholly above a threshold, `K` when none does.

    Exact when `lowest_above` the threshold is one of the edges; otherwise off by less than one
    bin.
    """
    return int(np.searchsorted(edges, lowest_above(threshold), side="left"))


class Metric(NamedTuple):
    """A figure of voxels.

    Attributes:
        title: of its column in the table.
        function: takes annotated and other voxels a bin `(..., K)`, gives `(...)`.
    """

    title: str
    function: Callable[..., FloatArray]


#: Metrics over all thresholds by the names of their columns.
METRICS: dict[str, Metric] = {
    "auroc": Metric("AUROC", area_under_roc),
    "auroc_fpr30": Metric("AUROC@0.3", partial(area_under_roc, max_fpr=MAX_FPR)),
    "average_precision": Metric("AP", average_precision),
    "best_dice": Metric("best Dice", best_dice),
    "best_iou": Metric("best IoU", best_iou),
}
#: Metrics at a threshold; their functions take the first bin above it as well.
METRICS_AT_THRESHOLD: dict[str, Metric] = {
    "dice": Metric("Dice", dice_above),
    "iou": Metric("IoU", iou_above),
}


def score_histogram(
    histogram: CaseHistogram, edges: NDArray[np.float32], threshold: float | None = None
) -> dict[str, float]:
    """Computes every metric of one histogram.

    Args:
        histogram: counts over K bins.
        edges: lower bounds of the bins `(K,)`.
        threshold: score above which voxels are positive for `METRICS_AT_THRESHOLD`; None takes
            `best_threshold`.

    Returns:
        Counts of voxels and of annotated ones, the metrics by name, `best_threshold` (the score
        above which voxels are positive for `best_dice` and `best_iou`) and `threshold`.
    """
    positive, negative = histogram.positive, histogram.negative
    annotated = int(positive.sum(dtype=np.int64))
    best = int(best_bin(dice_curve(positive, negative)))
    first = best if threshold is None else threshold_bin(edges, threshold)
    best_threshold = highest_below(edges[best]) if annotated else float("nan")
    at_threshold = METRICS_AT_THRESHOLD.items()
    return {
        "voxels": annotated + int(negative.sum(dtype=np.int64)),
        "annotated": annotated,
        **{name: float(metric.function(positive, negative)) for name, metric in METRICS.items()},
        "best_threshold": best_threshold,
        "threshold": best_threshold if threshold is None else float(threshold),
        **{n: float(metric.function(positive, negative, first)) for n, metric in at_threshold},
    }
