"""One score for a whole picture: the highest of its map after a blur."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

# Parts of the longer side that a standard deviation is: PaDiM's 4 of 256 pixels.
_SIDE = 64
# Blocks of pixels along the longer side that a large map is averaged to before, at least.
_BLOCKS = 512


def smoothed_score(scores: NDArray[np.floating], body: NDArray[np.bool_]) -> float:
    """Maximum in the body of the map after a Gaussian blur, which a single odd pixel hardly moves.

    The standard deviation is the longer side / 64. Only pixels of the body count, weighted anew
    where the border is near, so that a border is as high as what lies at it.

    Args:
        scores: map of a picture, (H, W).
        body: which pixels count, (H, W), at least one.

    Returns:
        In the unit of the map. Of maps with a side of 1024 pixels and more it is that of means of
        blocks, whose edge is an eighth of the standard deviation at most.

    References:
        Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
        Localization, 2021, whose image score is the maximum of the map
        (https://arxiv.org/abs/2011.08785); its public code blurs the map before.

    Example:
        >>> flat = np.full((64, 48), 2.5)
        >>> round(smoothed_score(flat, flat > 0), 6)
        2.5
    """
    longest = max(scores.shape)
    edge = max(1, longest // _BLOCKS)
    weight = _block_means(body.astype(np.float64), edge)
    total = _block_means(np.where(body, scores, 0).astype(np.float64), edge)
    sigma = longest / _SIDE / edge
    total, near = (gaussian_filter(part, sigma, mode="constant") for part in (total, weight))
    inside = weight > 0
    return float((total[inside] / near[inside]).max())


def _block_means(values: NDArray[np.float64], edge: int) -> NDArray[np.float64]:
    """Means of squares of pixels, filled up with zeros."""
    if edge == 1:
        return values
    rows, columns = (-(-n // edge) for n in values.shape)
    room = [(0, k * edge - n) for k, n in zip((rows, columns), values.shape, strict=True)]
    blocks = np.pad(values, room).reshape(rows, edge, columns, edge)
    return blocks.mean(axis=(1, 3))
