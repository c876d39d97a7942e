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

BINS = 65_536
# Cells of the table that replaces the first sixteen steps of a binary search; it then still fits
# in the processor's cache, as does a chunk of scores.
_CELLS = 1 << 20
_CHUNK = 1 << 18


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


class BinIndex:
    """Maps scores to the bins that start at given edges.

    A monotone function cuts the scores into a million cells, most of which hold one edge or none:
    a table gives the bin at the cell's lower end and one comparison decides. Scores in cells that
    hold more edges fall back on a binary search, so that the bins are exact for any edges.

    Args:
        edges: strictly increasing lower bounds of the bins `(K,)`; scores outside go in the end
            bins.
    """

    def __init__(self, edges: NDArray[np.float32]) -> None:
        """Builds the table."""
        self.edges = np.asarray(edges, dtype=np.float32)
        # Not even an infinite score reaches NaN, so that none steps past the last bin.
        self._next = np.append(self.edges[1:], np.float32(np.nan))
        self._low, high = float(self.edges[0]), float(self.edges[-1])
        with np.errstate(over="ignore"):
            self._scale = np.float32((_CELLS - 1) / max(high - self._low, 1e-30))
        keys = _ordered_bits(self.edges).astype(np.int64)
        self._low_key = int(keys[0])
        self._shift = max(int(keys[-1] - keys[0]).bit_length() - _CELLS.bit_length() + 1, 0)
        # Evenly wide cells suit most scores, those of floating point's exponents skewed ones.
        self._linear = self._crowding(linear=True) <= self._crowding(linear=False)
        inside = np.bincount(self._cells(self.edges, self._linear), minlength=_CELLS)
        before = np.cumsum(inside) - inside
        self._first = np.maximum(before - 1, 0).astype(np.int32)
        self._crowded = bool(inside.max() > 1)

    def find(self, values: NDArray[np.float32]) -> NDArray[np.int32]:
        """Bins `(n,)` of scores `(n,)` without NaN."""
        bins = self._first.take(self._cells(values, self._linear))
        higher = values >= self._next.take(bins)
        bins += higher
        if self._crowded:
            rest = np.flatnonzero(higher)
            beyond = rest[values[rest] >= self._next[bins[rest]]]
            bins[beyond] = np.searchsorted(self.edges, values[beyond], side="right") - 1
        return bins

    def count(self, values: NDArray[np.floating], chunk: int = _CHUNK) -> NDArray[np.int64]:
        """Counts `(K,)` of scores of any shape, `chunk` of them at a time."""
        flat = np.asarray(values, dtype=np.float32).ravel()
        counts = np.zeros(self.edges.size, dtype=np.int64)
        for start in range(0, flat.size, chunk):
            counts += np.bincount(self.find(flat[start : start + chunk]), minlength=counts.size)
        return counts

    def _cells(self, values: NDArray[np.float32], linear: bool) -> NDArray[np.int32]:
        """Cell of each score, never falling as scores rise."""
        if linear:
            with np.errstate(over="ignore", invalid="ignore"):
                place = values - np.float32(self._low)
                place *= self._scale
            return np.clip(place, 0, _CELLS - 1, out=place).astype(np.int32)
        keys = _ordered_bits(values)
        highest = min(self._low_key + (_CELLS << self._shift) - 1, 2**31 - 1)
        np.clip(keys, self._low_key, highest, out=keys)
        # Unsigned differences cannot overflow where a signed one of two 32-bit keys would.
        offset = keys.view(np.uint32) - np.uint32(self._low_key % 2**32)
        offset >>= np.uint32(self._shift)
        return offset.view(np.int32)

    def _crowding(self, linear: bool) -> float:
        """Edges that share a cell with the average edge."""
        inside = np.bincount(self._cells(self.edges, linear), minlength=_CELLS)
        return float(np.square(inside.astype(np.float64)).sum() / self.edges.size)


def _ordered_bits(values: NDArray[np.float32]) -> NDArray[np.int32]:
    """Integers that are ordered as the floating-point numbers are; -0 comes right below 0."""
    bits = values.view(np.int32)
    keys = bits >> 31
    keys &= 0x7FFFFFFF
    keys ^= bits
    return keys


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
