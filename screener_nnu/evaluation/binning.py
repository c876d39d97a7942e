"""Finds the bins of many scores fast, whatever the speed of sorting on the processor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Cells of the table that replaces the first sixteen steps of a binary search; it then still fits
# in the processor's cache, as does a chunk of scores.
_CELLS = 1 << 20
_CHUNK = 1 << 18


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
