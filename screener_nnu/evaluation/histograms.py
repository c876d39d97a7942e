"""Positive and negative score histograms of one case over bins that all cases share.

Every curve, threshold choice and bootstrap is then array arithmetic on counts, however many
voxels were scored, and cases scored on different machines can be merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.binning import BinIndex

BINS = 65_536


def quantile_edges(
    samples: Sequence[NDArray[np.floating]],
    bins: int = BINS,
    include: Iterable[float] = (),
) -> NDArray[np.float32]:
    """Places shared bins so that each sample spreads evenly over its share of them.

    Bin `k` holds the scores in `[edges[k], edges[k + 1])`; scores outside go in the end bins.
    Samples with no more distinct values than bins get one bin a value, so discrete scores lose
    nothing; a value that is tied over several quantiles gets a bin of its own.

    Args:
        samples: scores to spread over the bins, one array a class (the few annotated voxels
            decide the average precision and would otherwise share a handful of bins).
        bins: number of bins aimed at.
        include: values that must be edges, such as the extremes or a threshold to report.

    Returns:
        Strictly increasing edges `(K,)`, K at most `bins` plus the included values.

    Raises:
        ScreenerError: when there is not a single finite value to place bins by.
    """
    filled = [np.asarray(sample, dtype=np.float32).ravel() for sample in samples if len(sample)]
    included = np.asarray(list(include), dtype=np.float32)
    joint = np.unique(np.concatenate([included, *filled]))
    if not joint.size or not np.isfinite(joint).all():
        raise ScreenerError("bins need finite scores; check the maps for NaN and infinite values")
    if joint.size <= bins:
        return joint
    spread = [_spread(sample, max(bins // len(filled), 2)) for sample in filled]
    return np.unique(np.concatenate([included, *spread]))


def _spread(sample: NDArray[np.float32], share: int) -> NDArray[np.float32]:
    """Edges at `share` quantiles of a sample, with heavily tied values set apart."""
    ordered = np.sort(sample)
    places = np.unique(np.linspace(0, ordered.size - 1, share).round().astype(np.int64))
    values, first, repeats = np.unique(ordered[places], return_index=True, return_counts=True)
    before = ordered[np.maximum(places[first] - 1, 0)]
    # Half way between two scores: were an edge a score of this class, the other class's scores in
    # its bin would all lie above that score, and counting them as tied would bias the curves.
    middle = before + (values - before) / 2
    untied = (repeats == 1) & (middle > before)
    # A second edge right above a tied value closes its bin, so that it shares it with nothing.
    after_ties = np.nextafter(values[repeats > 1], np.float32(np.inf))
    return np.concatenate([np.where(untied, middle, values), after_ties])


@dataclass(frozen=True)
class CaseHistogram:
    """Counts of annotated and other voxels of one case (or of several merged ones).

    Attributes:
        case: name of the case.
        positive: annotated voxels in each bin `(K,)`.
        negative: other voxels in each bin `(K,)`.
    """

    case: str
    positive: NDArray[np.integer]
    negative: NDArray[np.integer]

    @classmethod
    def count(
        cls,
        case: str,
        scores: NDArray[np.floating],
        annotated: NDArray[np.bool_],
        edges: NDArray[np.float32],
    ) -> CaseHistogram:
        """Counts the scores of a case.

        Args:
            case: name of the case.
            scores: scores of the voxels counted, any shape.
            annotated: which of them are annotated, same shape.
            edges: lower bounds of the shared bins `(K,)`.

        Raises:
            CaseError: when a score is NaN, which no bin can hold.
        """
        if np.isnan(scores).any():
            raise CaseError(case, "the scores contain NaN; predict this case again")
        index = BinIndex(edges)
        positive = index.count(scores[annotated])
        # A copy of the many other voxels would take longer than counting the few annotated twice.
        return cls(case, positive, index.count(scores) - positive)

    def merge(self, other: CaseHistogram, case: str | None = None) -> CaseHistogram:
        """Adds the counts of another histogram over the same bins."""
        return merge_histograms([self, other], case or f"{self.case}+{other.case}")


def merge_histograms(histograms: Iterable[CaseHistogram], case: str = "pooled") -> CaseHistogram:
    """Adds histograms over the same bins into one.

    Raises:
        ScreenerError: when there are none, or when their bins differ in number.
    """
    listed = list(histograms)
    if not listed:
        raise ScreenerError("no case is left to evaluate")
    if len({histogram.positive.size for histogram in listed}) > 1:
        raise ScreenerError("histograms over different bins cannot be merged; count them again")
    positive = np.zeros(listed[0].positive.size, dtype=np.int64)
    negative = np.zeros_like(positive)
    for histogram in listed:
        positive += histogram.positive.astype(np.int64, copy=False)
        negative += histogram.negative.astype(np.int64, copy=False)
    return CaseHistogram(case, positive, negative)
