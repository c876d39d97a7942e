"""AUROC of scores that stand for many voxels each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def weighted_auroc(
    scores: NDArray[np.floating],
    positive: NDArray[np.floating],
    negative: NDArray[np.floating],
) -> float:
    """Exact area under the ROC curve of voxels that share a score.

    Args:
        scores: one score a position, (n,).
        positive: annotated voxels of the position, (n,), not necessarily whole.
        negative: other voxels of the position, (n,).

    Returns:
        The area; NaN when there are no annotated voxels or no other ones.
    """
    order = np.argsort(scores, kind="stable")
    ordered = np.asarray(scores)[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] > ordered[:-1]]))
    # Equal scores count as tied: half of their pairs are in the right order.
    above = np.add.reduceat(np.asarray(positive, np.float64)[order], first)
    below = np.add.reduceat(np.asarray(negative, np.float64)[order], first)
    pairs = above.sum() * below.sum()
    if pairs == 0:
        return float("nan")
    return float((above * (np.cumsum(below) - below / 2)).sum() / pairs)
