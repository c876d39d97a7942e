"""Does a scan have a lesion at all: the ROC over cases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.metrics import area_under_roc


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
