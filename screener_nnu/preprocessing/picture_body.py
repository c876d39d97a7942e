"""The part of a picture that shows something: without the black around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from skimage.draw import polygon

# Black that comes in from a side through a gap of so many pixels does not enter what is lit.
_GAP = 3
# Parts with less than this share of the largest, such as letters in the border, are not lit.
_SMALLEST_PART = 0.02
# With less than this share of the picture lit, black is no border but what the picture shows.
_LEAST_LIT = 0.1
# A field of view is convex. Where so much of the convex hull is lit, the rest is shadow.
_CONVEX_SHARE = 0.6


def lit_area(picture: NDArray, level: float) -> NDArray[np.bool_]:
    """What black from the sides of a picture does not reach.

    Dark places inside stay: a vessel or a cyst that is lit around is no border. Nor is a shadow
    that reaches a side, as ultrasound has it behind a dense lesion: fields of view of cameras and
    probes are convex, so what its convex hull adds to a part that nearly fills it stays as well.

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
    if lit.mean() < _LEAST_LIT:
        return whole
    for part in np.flatnonzero(kept):
        one = parts == part
        hull = _hull(one)
        if one.sum() >= _CONVEX_SHARE * hull.sum():
            lit |= hull
    return lit


def _hull(lit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Convex hull of the pixels of a mask (y, x)."""
    rows = np.flatnonzero(lit.any(axis=1))
    first, last = lit[rows].argmax(axis=1), lit.shape[1] - 1 - lit[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows, first], 1), np.stack([rows, last], 1)])
    hull = lit.copy()
    if np.ptp(ends, axis=0).min() > 0:  # else a line, which is its own hull
        corners = ends[ConvexHull(ends).vertices]
        rows, columns = corners.T
        hull[polygon(rows, columns, shape=lit.shape)] = True
    return hull
