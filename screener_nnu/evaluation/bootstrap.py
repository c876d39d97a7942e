"""Bootstrap intervals over cases for figures that are pooled over voxels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.histograms import CaseHistogram, merge_histograms
from screener_nnu.evaluation.lesions import LesionHistograms
from screener_nnu.evaluation.metrics import METRICS, METRICS_AT_THRESHOLD, threshold_bin
from screener_nnu.evaluation.threshold_choice import bootstrap_choice

# Samples drawn together: 32 rows of 4096 bins in double precision stay in the cache.
_BATCH = 32
SAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """Percentile interval of one metric; NaN when there are fewer than two cases."""

    low: float
    high: float


def bootstrap_intervals(
    histograms: Sequence[CaseHistogram],
    edges: NDArray[np.float32],
    threshold: float | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    bins: int = 4096,
    lesions: Sequence[LesionHistograms] | None = None,
    chosen_on: Sequence[int] = (),
) -> dict[str, Interval]:
    """Resamples whole cases, since voxels of one scan are not independent.

    The histograms of a resampled set of cases add up to a product of multinomial weights and the
    matrix of case histograms. Equal seeds draw equal cases, so methods are compared in pairs.

    Args:
        histograms: one histogram a case, over the same K bins.
        edges: lower bounds of the bins `(K,)`.
        threshold: fixed score of `METRICS_AT_THRESHOLD`; None leaves them out.
        samples: number of bootstrap samples.
        seed: seed of the draws.
        bins: bins kept for the bootstrap; the coarser bins move an end by far less than
            the interval is wide.
        lesions: lesions of each case, for `aupro_fpr30`; None leaves it out.
        chosen_on: numbers of cases for Dice at a threshold chosen on them, `dice_k1` and so on.

    Returns:
        95 % interval of each pooled figure by its name.
    """
    functions = {name: metric.function for name, metric in METRICS.items()}
    fixed = None if threshold is None else threshold_bin(edges, threshold)
    starts = coarse_starts(merge_histograms(histograms), bins, fixed)
    if fixed is not None:
        first = int(np.searchsorted(starts, fixed))
        for name, metric in METRICS_AT_THRESHOLD.items():
            functions[name] = partial(metric.function, first=first)
    positive = np.stack([np.add.reduceat(h.positive, starts) for h in histograms]).astype(float)
    negative = np.stack([np.add.reduceat(h.negative, starts) for h in histograms]).astype(float)
    weights = case_weights(len(histograms), samples, seed)
    draws = _draw(positive, negative, functions, weights)
    if lesions is not None:
        # A lesion is one in all however large, in the place of its voxels.
        overlap = np.stack([np.add.reduceat(x.overlap(edges.size), starts) for x in lesions])
        area = METRICS["auroc_fpr30"].function
        draws |= _draw(overlap, negative, {"aupro_fpr30": area}, weights)
    for k in chosen_on:
        draws[f"dice_k{k}"] = bootstrap_choice(positive, negative, k, samples, seed)
    return {name: interval(values, len(histograms)) for name, values in draws.items()}


def case_weights(
    cases: int, samples: int, seed: int, groups: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """How often each case is drawn in each bootstrap sample `(samples, cases)`.

    Args:
        cases: number of cases.
        samples: number of bootstrap samples.
        seed: seed of the draws.
        groups: of each case `(cases,)`, such as its patient; whole groups are then drawn.
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        group = np.arange(cases)
    else:
        group = np.unique(np.asarray(groups), return_inverse=True)[1]
    drawn = int(group.max()) + 1
    weights = rng.multinomial(drawn, np.full(drawn, 1.0 / drawn), size=samples).astype(float)
    return weights if groups is None else weights[:, group]


def coarse_starts(pooled: CaseHistogram, bins: int, keep: int | None = None) -> NDArray[np.intp]:
    """First fine bins of coarser ones that share annotated and other voxels out evenly.

    Args:
        pooled: histogram over all cases, K bins.
        bins: coarser bins aimed at.
        keep: fine bin at which a coarser one must start, such as that of a threshold.
    """
    mass = np.zeros(pooled.positive.size)
    for counts in (pooled.positive, pooled.negative):
        mass += counts / max(int(counts.sum()), 1)
    reached = np.cumsum(mass) - mass
    group = np.floor(reached / max(mass.sum(), 1e-12) * bins).astype(np.int64)
    starts = np.flatnonzero(np.diff(group, prepend=-1) > 0)
    if keep is not None and keep < mass.size:
        starts = np.union1d(starts, [keep])
    return starts.astype(np.intp)


def _draw(
    positive: NDArray[np.float64],
    negative: NDArray[np.float64],
    functions: dict[str, Callable[..., NDArray[np.float64]]],
    weights: NDArray[np.float64],
) -> dict[str, NDArray[np.float64]]:
    """Metrics `(samples,)` of resampled cases, from case matrices `(cases, bins)`."""
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in functions}
    for start in range(0, weights.shape[0], _BATCH):
        batch = weights[start : start + _BATCH]
        summed = batch @ positive, batch @ negative
        for name, function in functions.items():
            drawn[name].append(function(*summed))
    return {name: np.concatenate(values) for name, values in drawn.items()}


def interval(values: NDArray[np.float64], cases: int, confidence: float = 0.95) -> Interval:
    """Percentile interval of the samples `(samples,)` on which a figure is defined.

    Args:
        values: the figure in each bootstrap sample.
        cases: cases that were resampled; one alone has no interval.
        confidence: share of the samples within the interval.
    """
    defined = values[np.isfinite(values)]
    if cases < 2 or not defined.size:
        return Interval(float("nan"), float("nan"))
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Interval(float(low), float(high))
