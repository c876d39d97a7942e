"""Does a scan have a lesion at all: one score a case, and its ROC over cases."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.metrics import area_under_roc

TOP_ML = 1.0
"""Volume whose mean score is the score of a case: a sphere of 12 mm."""
_STRIDE = 64


def case_score(scores: NDArray[np.float32], spacing: tuple[float, float, float]) -> float:
    """Mean of the highest scores in the body that make up `TOP_ML`.

    Args:
        scores: scores of the voxels of the body `(n,)`, n above zero. Annotated voxels outside of
            the body must not be among them: a healthy case has none.
        spacing: voxel spacing in mm.
    """
    top = max(round(TOP_ML * 1000 / math.prod(spacing)), 1)
    if top >= scores.size:
        return float(scores.mean(dtype=np.float64))
    candidates = _likely_highest(scores, 2 * top)
    if candidates.size < top:
        candidates = scores
    highest = np.partition(candidates, candidates.size - top)[candidates.size - top :]
    return float(highest.mean(dtype=np.float64))


def _likely_highest(scores: NDArray[np.float32], number: int) -> NDArray[np.float32]:
    """All scores above a bound that about `number` exceed, found on every 64th: sorting is slow."""
    sample = scores[::_STRIDE]
    above = -(-number // _STRIDE)
    if above >= sample.size:
        return scores
    place = sample.size - 1 - above
    return scores[scores >= np.partition(sample, place)[place]]


def case_auroc(
    scores: Sequence[float], ill: Sequence[bool], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Area under the ROC curve over cases, NaN unless there are ill and healthy ones.

    Args:
        scores: score of each of C cases.
        ill: whether each case has an annotation.
        weights: how often each case counts `(..., C)`, such as in bootstrap samples.

    Returns:
        Areas `(...)`.
    """
    values, places = np.unique(np.asarray(scores, dtype=np.float64), return_inverse=True)
    member = np.zeros((places.size, values.size))
    member[np.arange(places.size), places] = 1.0
    label = np.asarray(ill, dtype=np.float64)
    return area_under_roc((weights * label) @ member, (weights * (1.0 - label)) @ member)
