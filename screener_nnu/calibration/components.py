"""How many connected parts of a scan lie above each of many thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.components import detect
from screener_nnu.plans import Shape

THRESHOLDS = 160
"""Thresholds at which components are counted; the sweep over them takes 255 at most."""
_TAIL_SHARE = 0.05
_TAIL_VOXELS = 4_000_000
_LEAST_SHARE = 1e-8


@dataclass(frozen=True)
class Tail:
    """The highest scores of a body: all that components at high thresholds need.

    Attributes:
        shape: voxels of the scan, (z, y, x).
        voxel_ml: volume of a voxel (ml).
        places: flat index of each voxel, rising `(n,)`.
        scores: their scores (nats) `(n,)`.
        floor: score above which no voxel of the body is missing.
        body_voxels: voxels of the whole body.
    """

    shape: Shape
    voxel_ml: float
    places: NDArray[np.int64]
    scores: NDArray[np.float32]
    floor: float
    body_voxels: int


def tail_of(
    score: NDArray[np.float32],
    body: NDArray[np.bool_],
    voxel_ml: float,
    reach: float = math.inf,
) -> Tail:
    """The highest twentieth of the scores in a body, all above a score, four million at most.

    Args:
        score: map (nats), (z, y, x).
        body: voxels that count, (z, y, x).
        voxel_ml: volume of a voxel (ml).
        reach: score (nats) that the tail must reach down to, though the whole scan lie above it.
    """
    inside = np.flatnonzero(body)
    scores = score.reshape(-1)[inside]
    floor = min(_score_below(scores, int(_TAIL_SHARE * scores.size)), reach)
    if (scores > floor).sum() > _TAIL_VOXELS:
        floor = _score_below(scores, _TAIL_VOXELS)
    high = scores > floor
    z, y, x = score.shape
    return Tail((z, y, x), voxel_ml, inside[high], scores[high], floor, inside.size)


def _score_below(scores: NDArray[np.float32], highest: int) -> float:
    """The score above which lie at most so many of the scores, and all of them but for ties."""
    place = scores.size - 1 - max(highest, 1)
    return float(np.partition(scores, place)[place])


def shared_thresholds(tails: Sequence[Tail]) -> NDArray[np.float32]:
    """Rising thresholds (nats) that all tails reach down to.

    Half are spread evenly over the logarithm of the voxels' share. Where one scan lies far above
    the others it owns these, so the other half is spread evenly over nats. The highest one is the
    highest score, above which there is nothing.
    """
    floor = max(tail.floor for tail in tails)
    scores = np.concatenate([tail.scores[tail.scores > floor] for tail in tails])
    if not scores.size:
        return np.array([floor], dtype=np.float32)
    shares = np.concatenate(
        [np.full((t.scores > floor).sum(), 1.0 / t.body_voxels) for t in tails]
    ) / len(tails)
    falling = np.argsort(scores)[::-1]
    reached = np.cumsum(shares[falling])
    wanted = np.geomspace(max(reached[0], _LEAST_SHARE), reached[-1], THRESHOLDS // 2)
    places = np.minimum(np.searchsorted(reached, wanted), falling.size - 1)
    even = np.linspace(np.float32(floor), scores.max(), THRESHOLDS // 2, dtype=np.float32)
    return np.unique(np.concatenate([even, scores[falling[places]]]))


def count_components(
    tail: Tail, thresholds: NDArray[np.float32], volumes_ml: Sequence[float]
) -> NDArray[np.int32]:
    """Components (26-neighbourhood) of the body's voxels above each threshold `(V, T)`.

    Args:
        tail: of a scan.
        thresholds: rising, none below the tail's floor `(T,)`.
        volumes_ml: least volume (ml) of the components that count, one row each.
    """
    least = [least_voxels(volume, tail.voxel_ml) for volume in volumes_ml]
    above = tail.scores > thresholds[0]
    volume = np.zeros(tail.shape, dtype=bool)
    volume.reshape(-1)[tail.places[above]] = True
    reached = np.searchsorted(thresholds, tail.scores[above], side="left")
    detections = detect(volume, thresholds.size - reached, thresholds.size)
    counts = np.zeros((len(least), thresholds.size), dtype=np.int32)
    for place, component in enumerate(detections.components()):
        sizes = np.bincount(component)
        counts[:, thresholds.size - 1 - place] = [(sizes >= n).sum() for n in least]
    return counts


def least_voxels(volume_ml: float, voxel_ml: float) -> int:
    """Voxels that make up at least a volume, one or more."""
    return max(math.ceil(volume_ml / voxel_ml - 1e-9), 1)
