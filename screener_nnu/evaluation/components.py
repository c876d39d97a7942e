"""Connected components of a map at falling thresholds, all in one sweep.

Components only grow and join when the threshold falls. So each pair of neighbouring voxels is
looked at once, at the threshold where both are detected, instead of labelling the volume anew at
every threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

# Half of the 26-neighbourhood: each pair of neighbours is found from one of its ends.
_FORWARD = [step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]


@dataclass(frozen=True)
class Detections:
    """Voxels at or above the lowest of T thresholds, those of the highest thresholds first.

    Attributes:
        order: place of each voxel among the given ones `(n,)`.
        present: voxels at or above each threshold, from the highest down `(T,)`.
        first: one end of each pair of neighbours, as a number of a voxel `(E,)`.
        second: the other end `(E,)`.
        pairs: pairs with both ends at or above each threshold, from the highest down `(T,)`.
    """

    order: NDArray[np.intp]
    present: NDArray[np.int64]
    first: NDArray[np.int32]
    second: NDArray[np.int32]
    pairs: NDArray[np.int64]

    def components(self) -> Iterator[NDArray[np.int32]]:
        """Yields, threshold by threshold from the highest, the component of each voxel present.

        The components of threshold `t` are numbered from 0, `(present[t],)`.
        """
        component = np.zeros(self.order.size, dtype=np.int32)
        number, voxels, pair = 0, 0, 0
        for present, pairs in zip(self.present, self.pairs, strict=True):
            fresh = int(present) - voxels
            component[voxels:present] = np.arange(number, number + fresh)
            ends = (component[self.first[pair:pairs]], component[self.second[pair:pairs]])
            nodes = number + fresh
            joined = coo_matrix((np.ones(ends[0].size, bool), ends), shape=(nodes, nodes))
            number, merged = connected_components(joined, directed=False)
            voxels, pair = int(present), int(pairs)
            component[:voxels] = merged[component[:voxels]]
            yield component[:voxels]


def detect(detected: NDArray[np.bool_], levels: NDArray[np.integer], number: int) -> Detections:
    """Finds the pairs of neighbouring voxels and the threshold at which each appears.

    Args:
        detected: voxels at or above the lowest threshold `(z, y, x)`.
        levels: for each of them in the order of the array, the first threshold from the highest
            down that it reaches, from 0 `(n,)`.
        number: thresholds T.
    """
    levels = levels.astype(np.uint8)
    order = np.argsort(levels, kind="stable")
    first, second = _neighbours(detected, order)
    # Numbers rise with the level, so the later voxel decides when a pair appears.
    pair_levels = levels[order][np.maximum(first, second)]
    pair_order = np.argsort(pair_levels, kind="stable")
    return Detections(
        order,
        np.cumsum(np.bincount(levels, minlength=number)),
        first[pair_order],
        second[pair_order],
        np.cumsum(np.bincount(pair_levels, minlength=number)),
    )


def _neighbours(
    detected: NDArray[np.bool_], order: NDArray[np.intp]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Both ends of every pair of neighbours, as ranks in `order`."""
    boxes = ndimage.find_objects(detected.astype(np.uint8))
    if not boxes:
        return np.zeros(0, np.int32), np.zeros(0, np.int32)
    rank = np.empty(order.size, dtype=np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    # One voxel of surroundings keeps steps from leaving the array or wrapping around.
    inside = np.pad(detected[boxes[0]], 1)
    table = np.full(inside.shape, -1, dtype=np.int32)
    table[inside] = rank
    flat, places = table.ravel(), np.flatnonzero(inside)
    strides = (inside.shape[1] * inside.shape[2], inside.shape[2], 1)
    firsts, seconds = [], []
    for step in _FORWARD:
        other = flat[places + sum(a * b for a, b in zip(step, strides, strict=True))]
        met = other >= 0
        firsts.append(rank[met])
        seconds.append(other[met])
    return np.concatenate(firsts), np.concatenate(seconds)
