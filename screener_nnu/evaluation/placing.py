"""First pass over the cases: a sample of scores places the bins and thresholds of each method."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.bins import Bins, MethodBins
from screener_nnu.evaluation.cases import CaseFiles, iterate_scores, load_labels
from screener_nnu.evaluation.froc import place_thresholds
from screener_nnu.evaluation.histograms import quantile_edges
from screener_nnu.evaluation.metrics import lowest_above
from screener_nnu.evaluation.settings import Measurement
from screener_nnu.evaluation.workers import for_each_case

# Scores a method and class that place the bins, over all cases: some sixty for each bin.
_SAMPLES = 2_000_000
_LEAST_SAMPLES_PER_CASE = 2_000


@dataclass(frozen=True)
class _CaseSample:
    """Scores of some voxels of a case.

    Attributes:
        annotated: of annotated voxels.
        other: of other voxels.
        stands_for: other voxels of the case for each one drawn.
        extremes: lowest and highest score of all counted voxels.
    """

    annotated: NDArray[np.float32]
    other: NDArray[np.float32]
    stands_for: float
    extremes: tuple[float, float]


@dataclass
class _Gathered:
    """Samples of one method over the cases."""

    cases: list[_CaseSample] = field(default_factory=list)

    def place(self, included: list[float]) -> MethodBins:
        """Bins that spread annotated and other scores evenly, and thresholds of the FROC."""
        annotated = np.concatenate([case.annotated for case in self.cases])
        other = np.concatenate([case.other for case in self.cases])
        extremes = [value for case in self.cases for value in case.extremes]
        weights = np.concatenate([np.full(c.other.size, c.stands_for) for c in self.cases])
        # Without a single voxel that is not annotated no rate is defined; any threshold will do.
        thresholds = place_thresholds(other, weights) if other.size else np.unique(annotated)[:1]
        return MethodBins(
            quantile_edges([annotated, other], include=extremes + included), thresholds
        )


def place_bins(
    found: Sequence[CaseFiles],
    measurement: Measurement,
    thresholds: Mapping[str, float],
    processes: int,
) -> Bins:
    """Samples every case, and places the bins of each method.

    Args:
        found: cases with all their files.
        measurement: how to read them.
        thresholds: scores by method that must be the edge of a bin.
        processes: cases read at the same time.

    Returns:
        Bins, with the reason for each case that cannot be used.

    Raises:
        ScreenerError: when no case can be used.
    """
    size = max(_SAMPLES // max(len(found), 1), _LEAST_SAMPLES_PER_CASE)
    gathered: dict[str, _Gathered] = {}
    skipped: dict[str, str] = {}
    sampling = partial(_sample_case, measurement=measurement, size=size)
    sampled_cases = for_each_case(sampling, found, processes, "placing bins")
    for files, sampled in zip(found, sampled_cases, strict=True):
        if isinstance(sampled, CaseError):
            skipped[files.case] = sampled.reason
            continue
        for method, sample in sampled.items():
            gathered.setdefault(method, _Gathered()).cases.append(sample)
    if not gathered:
        raise no_case_left(skipped)
    methods = {
        method: samples.place(
            [float(lowest_above(thresholds[method]))] if method in thresholds else []
        )
        for method, samples in gathered.items()
    }
    return Bins(methods, skipped=skipped)


def no_case_left(skipped: Mapping[str, str]) -> ScreenerError:
    """The error that no case can be evaluated, with the first reasons."""
    reasons = "; ".join(f"{case}: {reason}" for case, reason in list(skipped.items())[:5])
    return ScreenerError(
        f"no case can be evaluated ({reasons or 'the folders hold no maps'}): map and annotation "
        "are CASE.nii.gz of one name, and CASE_body.nii.gz lies beside the map"
    )


def _sample_case(files: CaseFiles, measurement: Measurement, size: int) -> dict[str, _CaseSample]:
    """Up to `size` scores of annotated and of other voxels, by method."""
    labels = load_labels(files, measurement.labels)
    rng = np.random.default_rng([measurement.seed, zlib.crc32(files.case.encode())])
    # The same voxels for every method, so that no method's bins are luckier than another's.
    annotated = _draw(np.flatnonzero(labels.annotated), size, rng)
    others = np.flatnonzero(~labels.annotated)
    other = _draw(others, size, rng)
    return {
        method: _CaseSample(
            scores[annotated],
            scores[other],
            others.size / max(other.size, 1),
            (float(scores.min()), float(scores.max())),
        )
        for method, scores in iterate_scores(files, labels, measurement.hu_histogram)
    }


def _draw(places: NDArray[np.intp], size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return places if places.size <= size else places[rng.integers(0, places.size, size)]
