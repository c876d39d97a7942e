"""All figures of one method from the records of its cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.bins import MethodBins
from screener_nnu.evaluation.bootstrap import (
    SAMPLES,
    Interval,
    bootstrap_intervals,
    case_weights,
    interval,
)
from screener_nnu.evaluation.froc import (
    FALSE_POSITIVES_PER_SCAN,
    froc_curve,
    froc_figures,
    sensitivity_name,
)
from screener_nnu.evaluation.histograms import BinIndex, CaseHistogram, merge_histograms
from screener_nnu.evaluation.metrics import (
    MAX_FPR,
    METRICS,
    METRICS_AT_THRESHOLD,
    area_under_roc,
    score_histogram,
    weighted_auroc,
)
from screener_nnu.evaluation.records import CaseRecord
from screener_nnu.evaluation.threshold_choice import CASES, annotated_cases, dice_after_choice

PAPER = {"auroc": "auroc_paper_protocol", "auroc_fpr30": "auroc_fpr30_paper_protocol"}
"""Names of the figures of the paper's protocol by those of the same figures on all voxels."""
EMPTY_NOTE = "no voxel is annotated; its voxels count as normal ones in the pooled figures"
# Share of a case's voxels outside of the bins above which the end bins blur its curve.
_OUTSIDE = 1e-3

Figures = dict[str, float]


@dataclass(frozen=True)
class MethodResult:
    """Figures of one method.

    Attributes:
        edges: lower bounds of the method's bins `(K,)`.
        pooled: histogram over all cases.
        figures: every pooled figure by name.
        intervals: 95 % bootstrap interval over cases of the pooled figures; empty without.
        cases: every figure of each case; `METRICS_AT_THRESHOLD` at the given or the best pooled
            threshold.
        sensitivity: sensitivity to lesions at rising thresholds `(T,)`.
        false_positives: mean false positives per scan at the same thresholds `(T,)`.
    """

    edges: NDArray[np.float32]
    pooled: CaseHistogram
    figures: Figures
    intervals: dict[str, Interval]
    cases: dict[str, Figures]
    sensitivity: NDArray[np.float64]
    false_positives: NDArray[np.float64]


def figure_names(protocol: str) -> list[str]:
    """Every figure of a case or of the pooled cases, in the order of the tables' columns."""
    names = ["voxels", "annotated", *METRICS, "best_threshold", "threshold"]
    names += [*METRICS_AT_THRESHOLD, "lesions", "aupro_fpr30"]
    for k in CASES:
        names += [f"dice_k{k}", f"dice_k{k}_sd"]
    names += ["froc", *(sensitivity_name(allowed) for allowed in FALSE_POSITIVES_PER_SCAN)]
    names += ["case_auroc", "case_score"]
    return names + (list(PAPER.values()) if protocol == "paper" else [])


def summarise_method(
    records: Sequence[CaseRecord],
    bins: MethodBins,
    threshold: float | None,
    bootstrap: bool,
    protocol: str,
    seed: int,
) -> MethodResult:
    """Computes the figures of one method.

    Args:
        records: one record a case, over the same bins.
        bins: these bins.
        threshold: score of `METRICS_AT_THRESHOLD`; None takes the best pooled one.
        bootstrap: whether to compute intervals over cases.
        protocol: `full`, or `paper` for the figures of its sampling as well.
        seed: seed of the bootstrap and of the draws of `dice_k`.
    """
    histograms = [record.histogram for record in records]
    pooled = merge_histograms(histograms)
    figures = score_histogram(pooled, bins.edges, threshold)
    at = None if math.isnan(figures["threshold"]) else figures["threshold"]
    every = np.ones(len(records))
    figures |= _counted_figures(records, every, bins)
    cases = {
        record.histogram.case: {
            **score_histogram(record.histogram, bins.edges, at),
            **_counted_figures([record], every[:1], bins),
            "case_score": record.case_score,
        }
        for record in records
    }
    for k in CASES:
        chosen = dice_after_choice(histograms, k, seed=seed)
        figures |= {f"dice_k{k}": chosen.mean, f"dice_k{k}_sd": chosen.spread}
        for case, dice in chosen.cases.items():
            cases[case][f"dice_k{k}"] = dice
    if protocol == "paper":
        sampled = _sampled_histograms(records, bins)
        figures |= _paper_figures(merge_histograms(sampled), bins)
        for histogram in sampled:
            cases[histogram.case] |= _paper_figures(histogram, bins)
    curve = froc_curve([record.froc for record in records], every)
    intervals = _intervals(records, bins, threshold, protocol, seed) if bootstrap else {}
    return MethodResult(bins.edges, pooled, figures, intervals, cases, *curve)


def _counted_figures(
    records: Sequence[CaseRecord], weights: NDArray[np.float64], bins: MethodBins
) -> Figures:
    """Figures of lesions and cases."""
    size = bins.edges.size
    overlap = sum((record.lesions.overlap(size) for record in records), start=np.zeros(size))
    negative = merge_histograms([record.histogram for record in records]).negative
    froc = froc_figures([record.froc for record in records], weights)
    return {
        "lesions": sum(record.lesions.sizes.size for record in records),
        "aupro_fpr30": float(area_under_roc(overlap, negative, MAX_FPR)),
        **{name: float(value) for name, value in froc.items()},
        "case_auroc": float(_case_auroc(records, weights)),
    }


def _case_auroc(records: Sequence[CaseRecord], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Whether a case has an annotation, told by its score: areas (...) of weights (..., C)."""
    ill = np.array([record.lesions.sizes.size > 0 for record in records])
    return weighted_auroc([r.case_score for r in records], weights * ill, weights * ~ill)


def _sampled_histograms(records: Sequence[CaseRecord], bins: MethodBins) -> list[CaseHistogram]:
    """Histograms of the scores that the paper's protocol draws."""
    index = BinIndex(bins.edges)
    return [
        CaseHistogram(
            record.histogram.case,
            index.count(record.sampled.annotated),
            index.count(record.sampled.other),
        )
        for record in records
    ]


def _paper_figures(sampled: CaseHistogram, bins: MethodBins) -> Figures:
    figures = score_histogram(sampled, bins.edges)
    return {paper: figures[name] for name, paper in PAPER.items()}


def _intervals(
    records: Sequence[CaseRecord],
    bins: MethodBins,
    threshold: float | None,
    protocol: str,
    seed: int,
) -> dict[str, Interval]:
    """95 % intervals over cases of every pooled figure; equal seeds draw equal cases."""
    intervals = bootstrap_intervals(
        [record.histogram for record in records],
        bins.edges,
        threshold,
        seed=seed,
        lesions=[record.lesions for record in records],
        chosen_on=CASES,
    )
    weights = case_weights(len(records), SAMPLES, seed)
    drawn = froc_figures([record.froc for record in records], weights)
    drawn["case_auroc"] = _case_auroc(records, weights)
    intervals |= {name: interval(values, len(records)) for name, values in drawn.items()}
    if protocol == "paper":
        sampled = _sampled_histograms(records, bins)
        paper = bootstrap_intervals(sampled, bins.edges, seed=seed)
        intervals |= {name: paper[full] for full, name in PAPER.items()}
    return intervals


def case_notes(records: Sequence[CaseRecord], method: str) -> dict[str, str]:
    """Remarks on cases that were used but need one."""
    notes = {}
    for record in records:
        histogram = record.histogram
        voxels = int(histogram.positive.sum()) + int(histogram.negative.sum())
        if not record.lesions.sizes.size:
            notes[histogram.case] = EMPTY_NOTE
        if record.outside > _OUTSIDE * voxels:
            notes[histogram.case] = (
                f"{record.outside / voxels:.1%} of its scores of '{method}' lie outside of the "
                "bins given with --bins; place them anew on all cases"
            )
    return notes


def undefined_figures(records: Sequence[CaseRecord]) -> dict[str, str]:
    """Reason for each pooled figure that these cases cannot give."""
    ill = annotated_cases([record.histogram for record in records]).size
    reasons = {
        f"dice_k{k}": f"needs more than {k} annotated cases, there are {ill}"
        for k in CASES
        if ill <= k
    }
    if ill in (0, len(records)):
        reasons["case_auroc"] = "needs cases with and without annotation"
    if not any(record.froc.lesions for record in records):
        reasons["froc"] = "no lesion has the least volume"
    return reasons
