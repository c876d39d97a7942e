"""A score's percentile among the voxels of held-out bodies, each scan weighing the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import ScreenerError

# A bin holds the scores that share sign, exponent and 11 bits of the mantissa: 0.05 % of a score.
_SHIFT = 12
_HALF = 1 << (31 - _SHIFT)
# Even steps for most voxels, then 20 steps a decade of the share above, up to 99.999 and beyond.
_UPPER = 100.0 * (1.0 - np.logspace(-2, -7, 101))
_LEVELS = np.unique(np.concatenate([np.arange(0.5, 99.0, 0.5), _UPPER, [0.01, 0.1, 100.0]]))

FloatArray = NDArray[np.float64]


class ScanShares(NamedTuple):
    """The distribution of the scores of a scan: bins that hold any `(n,)`, and their shares."""

    bins: NDArray[np.intp]
    shares: FloatArray

    @classmethod
    def of(cls, scores: NDArray[np.float32]) -> ScanShares:
        """Of the finite scores `(n,)` of its voxels."""
        counts = np.bincount(_bins(scores))
        occupied = np.flatnonzero(counts)
        return cls(occupied, counts[occupied] / scores.size)


class ScoreHistogram:
    """Mean of the distributions of scans, over bins that need not be chosen beforehand."""

    def __init__(self) -> None:
        """Starts without a scan."""
        self.scans = 0
        self._shares = np.zeros(2 * _HALF)

    def add(self, scan: ScanShares) -> None:
        """Adds a scan."""
        self._shares[scan.bins] += scan.shares
        self.scans += 1

    def percentiles(self) -> PercentileMap:
        """The map from scores to percentiles; exact at its knots."""
        occupied = np.flatnonzero(self._shares)
        below = 100.0 * np.cumsum(self._shares[occupied]) / self.scans
        below[-1] = 100.0
        at = np.unique(np.minimum(np.searchsorted(below, _LEVELS), occupied.size - 1))
        scores = np.concatenate([_lower_edges(occupied[:1]), _lower_edges(occupied[at] + 1)])
        return PercentileMap(scores, np.concatenate([[0.0], below[at]]))


@dataclass(frozen=True)
class PercentileMap:
    """Strictly rising pairs of a score and the percentage of the voxels below it.

    Attributes:
        scores: nats `(K,)`.
        percentiles: in [0, 100] `(K,)`, from 0 to 100.
    """

    scores: FloatArray
    percentiles: FloatArray

    def percentile(self, scores: NDArray[np.floating]) -> FloatArray:
        """Percentiles of scores of any shape; 100 above all held-out voxels, NaN of NaN."""
        return np.interp(np.asarray(scores, dtype=np.float64), self.scores, self.percentiles)

    def score_at(self, percentile: float) -> float:
        """The score (nats) at a percentile in [0, 100]."""
        return float(np.interp(percentile, self.percentiles, self.scores))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "scores": [float(f"{value:.8g}") for value in self.scores],
            "percentiles": [round(float(value), 10) for value in self.percentiles],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PercentileMap:
        """Reads what `to_dict` wrote.

        Raises:
            ScreenerError: the pairs do not rise, or do not run from 0 to 100.
        """
        scores = np.asarray(values["scores"], dtype=np.float64)
        percentiles = np.asarray(values["percentiles"], dtype=np.float64)
        fits = scores.ndim == 1 and scores.shape == percentiles.shape and scores.size > 1
        finite = fits and bool(np.isfinite(scores).all() and np.isfinite(percentiles).all())
        if not finite or percentiles[0] != 0 or percentiles[-1] != 100:
            raise ScreenerError("its percentiles are no pairs of scores and percentages")
        if (np.diff(scores) <= 0).any() or (np.diff(percentiles) <= 0).any():
            raise ScreenerError("its percentiles do not rise with the score")
        return cls(scores, percentiles)


def _bins(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """Bin of each score: integers that are ordered as floating-point numbers are."""
    bits = np.ascontiguousarray(scores, dtype=np.float32).view(np.int32)
    keys = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (keys >> _SHIFT) + _HALF


def _lower_edges(bins: NDArray[np.integer]) -> FloatArray:
    """Lowest score of each bin."""
    keys = ((bins.astype(np.int64) - _HALF) << _SHIFT).astype(np.int32)
    bits = keys ^ ((keys >> 31) & 0x7FFFFFFF)
    return bits.view(np.float32).astype(np.float64)
