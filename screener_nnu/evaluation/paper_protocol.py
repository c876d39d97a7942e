"""The sampling of the paper: a thousand lesion and a thousand other voxels of each scan.

Pooled, they give AUROC at equal weight of scans and classes (Goncharov et al., arXiv 2502.08321).
Small and large lesions, short and long scans then weigh alike, which the figures over all voxels
do not do; it is kept to compare with the paper.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOXELS_PER_CLASS = 1000
"""Voxels drawn of each class and scan, fewer where there are fewer."""


@dataclass(frozen=True)
class SampledScores:
    """Scores of drawn voxels of one case.

    Attributes:
        annotated: of annotated voxels, up to `VOXELS_PER_CLASS`.
        other: of other voxels that count, up to `VOXELS_PER_CLASS`.
    """

    annotated: NDArray[np.float32]
    other: NDArray[np.float32]


def sample_scores(
    scores: NDArray[np.float32], places: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> SampledScores:
    """Scores at the places that `draw_voxels` drew."""
    return SampledScores(scores[places[0]], scores[places[1]])


def draw_voxels(
    annotated: NDArray[np.bool_], case: str, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draws annotated and other voxels of a case without repeats, the same for every method.

    Args:
        annotated: which of the counted voxels are annotated `(n,)`.
        case: name of the case, part of the seed.
        seed: seed of the evaluation.

    Returns:
        Places of annotated and of other voxels, each up to `VOXELS_PER_CLASS`.
    """
    rng = np.random.default_rng([seed, zlib.crc32(case.encode())])
    return _draw(np.flatnonzero(annotated), rng), _draw(np.flatnonzero(~annotated), rng)


def _draw(places: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    if places.size <= VOXELS_PER_CLASS:
        return places
    return rng.choice(places, VOXELS_PER_CLASS, replace=False, shuffle=False)
