"""The part of a picture that shows something: without the black around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Black that comes in from a side through a gap of so many pixels does not enter what is lit.
_GAP = 3
# Parts with less than this share of the largest, such as letters in the border, are not lit.
_SMALLEST_PART = 0.02
# With less than this share of the picture lit, black is no border but what the picture shows.
_LEAST_LIT = 0.1


def lit_area(picture: NDArray, level: float) -> NDArray[np.bool_]:
    """What black from the sides of a picture does not reach.

    Dark places inside stay: a vessel, a cyst or a shadow that is lit around is no border.

    Args:
        picture: grey values, (y, x).
        level: below which a pixel is black.

    Returns:
        bool (y, x). All of the picture, where what is lit is next to nothing of it.
    """
    whole = np.ones(picture.shape, bool)
    black = picture < level
    if not black.any():
        return whole
    edge = min(_GAP, *picture.shape)
    # Black goes on beyond the sides, so that a border of one pixel is found, too.
    around = np.pad(black, _GAP, constant_values=True)
    opened = ndimage.binary_opening(around, np.ones((edge, edge), bool))
    labels, _ = ndimage.label(opened)
    border = ndimage.binary_dilation(labels == labels[0, 0], np.ones((edge, edge), bool))
    inner = (slice(_GAP, -_GAP),) * 2
    lit = ~(border & around)[inner]
    parts, count = ndimage.label(lit)
    if not count:
        return whole
    sizes = np.bincount(parts.ravel())[1:]
    kept = np.concatenate([[False], sizes >= _SMALLEST_PART * sizes.max()])
    lit = kept[parts]
    return lit if lit.mean() >= _LEAST_LIT else whole
