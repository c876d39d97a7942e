"""Free-response ROC of lesions: sensitivity against false positives per scan.

The one figure that histograms cannot give, as it needs connected components of the thresholded
map. Counts are kept by case and threshold, so that they add up over cases and resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.components import detect
from screener_nnu.evaluation.lesions import Lesions
from screener_nnu.least_volume import MINIMUM_ML

FloatArray = NDArray[np.float64]

THRESHOLD_FPR = np.logspace(-6, -1, 26)
"""False positive rates of the voxels at which the thresholds are placed, five a decade."""
FALSE_POSITIVES_PER_SCAN = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Where sensitivity is reported and averaged (LUNA16; Setio et al., 2017)."""
MIN_VOLUME_MM3 = 1000 * MINIMUM_ML
"""Least volume of a detection and of a lesion: that of a finding."""
LEAST_ANNOTATED_SHARE = 0.1
"""Share of a detection that must be annotated; without it one that fills the body finds all."""


@dataclass(frozen=True)
class FrocCounts:
    """Lesions found and false positives of one case at T rising thresholds.

    Attributes:
        lesions: lesions of at least the least volume.
        found: those found at each threshold `(T,)`.
        false_positives: detections that find nothing at each threshold `(T,)`.
    """

    lesions: int
    found: NDArray[np.int32]
    false_positives: NDArray[np.int32]


def place_thresholds(scores: NDArray[np.float32], weights: FloatArray) -> NDArray[np.float32]:
    """Thresholds with the false positive rates `THRESHOLD_FPR`, rising, without repeats `(T,)`.

    Args:
        scores: sample of scores of voxels that are not annotated `(n,)`.
        weights: voxels that each of them stands for `(n,)`.
    """
    falling = np.argsort(scores)[::-1]
    reached = np.cumsum(weights[falling])
    places = np.searchsorted(reached, THRESHOLD_FPR * reached[-1])
    return np.unique(scores[falling[np.minimum(places, falling.size - 1)]])


def count_froc(
    scores: NDArray[np.float32],
    counted: NDArray[np.bool_],
    annotated: NDArray[np.bool_],
    lesions: Lesions,
    thresholds: NDArray[np.float32],
    least_voxels: int,
) -> FrocCounts:
    """Counts the lesions found and the false positives of a case at every threshold.

    A detection is a connected component (26-neighbourhood) of the voxels at or above the
    threshold with at least the least volume. One tenth or more of it annotated makes it a hit,
    otherwise it is a false positive. A lesion is found when a hit covers one of its voxels.
    Lesions below the least volume count neither as found nor as missed.

    Args:
        scores: scores of the counted voxels `(n,)`.
        counted: voxels that count `(z, y, x)`.
        annotated: which of the counted voxels are annotated `(n,)`.
        lesions: lesions of the case.
        thresholds: rising thresholds `(T,)`.
        least_voxels: least volume of a detection and of a lesion in voxels.
    """
    above = scores >= thresholds[0]
    volume = np.zeros(counted.shape, dtype=bool)
    volume[counted] = above
    reached = np.searchsorted(thresholds, scores[above], side="right")
    detections = detect(volume, thresholds.size - reached, thresholds.size)
    lesion = np.full(above.size, -1, dtype=np.int32)
    lesion[annotated] = lesions.of_voxel
    lesion = lesion[above][detections.order]
    large = lesions.sizes >= least_voxels
    found, false_positives = [], []
    for component in detections.components():
        here = lesion[: component.size]
        ill = np.flatnonzero(here >= 0)
        sizes = np.bincount(component)
        share = np.bincount(component[ill], minlength=sizes.size) / np.maximum(sizes, 1)
        detected, hit = sizes >= least_voxels, share >= LEAST_ANNOTATED_SHARE
        covered = np.unique(here[ill][(detected & hit)[component[ill]]])
        found.append(int(large[covered].sum()))
        false_positives.append(int((detected & ~hit).sum()))
    return FrocCounts(
        int(large.sum()),
        np.array(found[::-1], dtype=np.int32),
        np.array(false_positives[::-1], dtype=np.int32),
    )


def least_voxels(min_volume_mm3: float, spacing: tuple[float, float, float]) -> int:
    """Voxels of a spacing in mm that make up at least a volume, one or more."""
    return max(math.ceil(min_volume_mm3 / math.prod(spacing) - 1e-9), 1)


def froc_curve(counts: Sequence[FrocCounts], weights: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sensitivity and mean false positives per scan at each threshold.

    Args:
        counts: counts of C cases.
        weights: how often each case counts `(..., C)`, such as in bootstrap samples.

    Returns:
        Sensitivity, NaN without lesions, and false positives per scan, each `(..., T)`.
    """
    lesions = weights @ np.array([case.lesions for case in counts], dtype=float)
    found = weights @ np.stack([case.found for case in counts]).astype(float)
    false_positives = weights @ np.stack([case.false_positives for case in counts]).astype(float)
    sensitivity = np.full_like(found, np.nan)
    np.divide(found, lesions[..., None], out=sensitivity, where=lesions[..., None] > 0)
    return sensitivity, false_positives / weights.sum(axis=-1, keepdims=True)


def froc_figures(counts: Sequence[FrocCounts], weights: FloatArray) -> dict[str, FloatArray]:
    """Sensitivity at each number of false positives per scan, and their mean `froc`.

    The highest sensitivity of a threshold with no more false positives per scan; none is
    interpolated, and 0 where every threshold has more.

    Args:
        counts: counts of C cases.
        weights: how often each case counts `(..., C)`.

    Returns:
        Figures `(...)` by name.
    """
    sensitivity, false_positives = froc_curve(counts, weights)
    figures = {}
    for allowed in FALSE_POSITIVES_PER_SCAN:
        kept = np.where(false_positives <= allowed, sensitivity, 0.0)
        highest = kept.max(axis=-1)
        figures[sensitivity_name(allowed)] = np.where(
            np.isnan(sensitivity[..., 0]), np.nan, highest
        )
    return {"froc": np.mean(list(figures.values()), axis=0), **figures}


def sensitivity_name(allowed: float) -> str:
    """Name of the sensitivity at a number of false positives per scan."""
    return f"sensitivity_fp{allowed:g}"
