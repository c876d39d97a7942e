"""One score for a whole scan: a high percentile of the scores in its body."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import ScreenerError

CASE_PERCENTILE = 99.95
"""The percentile of a scan's own body voxels that is its case score; chosen by measurement."""
FLAG_PERCENTILE = 95.0
"""From this percentile among held-out scans on a scan is flagged: one of twenty normal ones is."""
#: Table of all scans beside their maps, and how its columns of other scores begin: of one vector of
#: a scan, and of the scan as a whole by a detector that has such a score.
CASE_TABLE, VECTOR, IMAGE = "cases.csv", "vector_", "image_"
_STRIDE = 64


def case_score(scores: NDArray[np.floating], percentile: float = CASE_PERCENTILE) -> float:
    """The case score of the scores of a body's voxels, of any shape; it has their unit.

    It equals `numpy.percentile`, but looks only at the voxels that may be among the highest.

    Raises:
        ScreenerError: no voxels, or scores that are no finite numbers.
    """
    if not scores.size:
        raise ScreenerError("a scan without body voxels has no case score")
    scores = scores.reshape(-1)
    place = (scores.size - 1) * percentile / 100.0
    top = scores.size - math.floor(place)
    highest = _likely_highest(scores, 2 * top)
    if highest.size < top:
        highest = scores
    lower, upper = highest.size - top, min(highest.size - top + 1, highest.size - 1)
    ordered = np.partition(highest, (lower, upper))
    low, high = float(ordered[lower]), float(ordered[upper])
    value = low + (high - low) * (place - math.floor(place))
    if not math.isfinite(value) or math.isnan(scores.min()):
        raise ScreenerError("the map holds NaN or infinite scores: predict this scan again")
    return value


def flag(percentile: float | None) -> int | None:
    """1 for a scan whose case score lies that high among held-out ones, else 0; None if unknown.

    >>> flag(95.0), flag(94.9), flag(None)
    (1, 0, None)
    """
    return None if percentile is None else int(percentile >= FLAG_PERCENTILE)


def _likely_highest(scores: NDArray[np.floating], number: int) -> NDArray[np.floating]:
    """All scores above a bound that about `number` exceed, found on every 64th: sorting is slow."""
    sample = scores[::_STRIDE]
    above = -(-number // _STRIDE)
    if above >= sample.size:
        return scores
    place = sample.size - 1 - above
    return scores[scores >= np.partition(sample, place)[place]]
