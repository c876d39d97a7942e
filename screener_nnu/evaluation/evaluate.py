"""Evaluates anomaly maps and baselines against annotations, one case in memory at a time."""

from __future__ import annotations

import multiprocessing
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.baselines import BASELINES
from screener_nnu.evaluation.bootstrap import Interval, bootstrap_intervals
from screener_nnu.evaluation.cases import (
    CaseFiles,
    HuHistogram,
    iterate_scores,
    load_labels,
    pair_cases,
)
from screener_nnu.evaluation.histograms import CaseHistogram, merge_histograms, quantile_edges
from screener_nnu.evaluation.metrics import Scores, score_histogram

# Scores a method and class that place the bins, over all cases: some sixty for each bin.
_SAMPLES = 2_000_000
_LEAST_SAMPLES_PER_CASE = 2_000
_EMPTY_NOTE = "no voxel is annotated; its voxels count as normal ones in the pooled figures"

Result = TypeVar("Result")
Edges = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class MethodResult:
    """Figures of one method.

    Attributes:
        edges: lower bounds of the method's bins `(K,)`.
        pooled: histogram over all cases.
        scores: metrics pooled over the voxels of all cases.
        intervals: 95 % bootstrap interval over cases of the pooled metrics; empty without.
        cases: metrics of each case; `dice` is taken at the given or the best pooled threshold.
    """

    edges: NDArray[np.float32]
    pooled: CaseHistogram
    scores: Scores
    intervals: dict[str, Interval]
    cases: dict[str, Scores]


@dataclass(frozen=True)
class Evaluation:
    """Figures of all methods on the same cases.

    Attributes:
        methods: result of each method, the maps first and then the baselines.
        skipped: reason for each case that could not be used.
        notes: remark on each case that was used but needs one.
    """

    methods: dict[str, MethodResult]
    skipped: dict[str, str]
    notes: dict[str, str]


@dataclass
class _ClassSamples:
    """Scores of one method that place its bins."""

    annotated: list[NDArray[np.float32]] = field(default_factory=list)
    other: list[NDArray[np.float32]] = field(default_factory=list)
    extremes: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Reading:
    """How to read a case; travels to worker processes."""

    labels: tuple[int, ...] | None
    hu_histogram: HuHistogram | None
    seed: int


def evaluate_maps(
    methods: Mapping[str, Path],
    masks: Path,
    images: Path | None = None,
    hu_histogram: HuHistogram | None = None,
    labels: Collection[int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    bootstrap: bool = True,
    processes: int = 1,
    seed: int = 0,
) -> Evaluation:
    """Evaluates maps and baselines on every case that has all its files.

    The voxels counted are the body mask united with the annotation. Two passes are made over the
    cases: a sample of scores places the bins of each method, then all scores are counted.

    Args:
        methods: folder of maps `<case>.nii.gz` and body masks `<case>_body.nii.gz`, by method.
        masks: folder of annotations `<case>.nii.gz`.
        images: folder of CT in HU; without it the baselines are left out.
        hu_histogram: HU of the training bodies; without it HU rarity is left out.
        labels: annotation values that are pathology; None takes all above zero.
        thresholds: threshold of a method chosen elsewhere; otherwise Dice is taken at the best
            pooled one, which is optimistic.
        bootstrap: whether to compute intervals over cases.
        processes: cases read at the same time.
        seed: seed of the sample that places the bins, and of the bootstrap.

    Raises:
        ScreenerError: when a folder does not exist, a method has the name of a baseline, or no
            case can be used.
    """
    if taken := set(methods) & set(BASELINES):
        raise ScreenerError(f"{', '.join(sorted(taken))}: the name of a baseline; choose another")
    found, skipped = pair_cases(methods, masks, images)
    reading = _Reading(tuple(labels) if labels is not None else None, hu_histogram, seed)
    edges, notes = _place_bins(found, reading, thresholds or {}, skipped, processes)
    usable = [files for files in found if files.case not in skipped]
    histograms: dict[str, list[CaseHistogram]] = {method: [] for method in edges}
    counting = partial(_count_case, reading=reading, edges=edges)
    for counted in _for_each(counting, usable, processes, "counting"):
        if isinstance(counted, CaseError):
            raise ScreenerError(f"changed while it was evaluated: {counted}")
        for method, histogram in counted.items():
            histograms[method].append(histogram)
    results = {
        method: _summarise(listed, edges[method], (thresholds or {}).get(method), bootstrap, seed)
        for method, listed in histograms.items()
    }
    return Evaluation(results, skipped, notes)


def _place_bins(
    found: Sequence[CaseFiles],
    reading: _Reading,
    thresholds: Mapping[str, float],
    skipped: dict[str, str],
    processes: int,
) -> tuple[Edges, dict[str, str]]:
    """First pass: edges of each method, and notes by case; enters bad cases in `skipped`."""
    size = max(_SAMPLES // max(len(found), 1), _LEAST_SAMPLES_PER_CASE)
    gathered: dict[str, _ClassSamples] = {}
    notes: dict[str, str] = {}
    sampling = partial(_sample_case, reading=reading, size=size)
    sampled_cases = _for_each(sampling, found, processes, "placing bins")
    for files, sampled in zip(found, sampled_cases, strict=True):
        if isinstance(sampled, CaseError):
            skipped[files.case] = sampled.reason
            continue
        for method, (annotated, other, extremes) in sampled.items():
            samples = gathered.setdefault(method, _ClassSamples())
            samples.annotated.append(annotated)
            samples.other.append(other)
            samples.extremes.extend(extremes)
            if not annotated.size:
                notes[files.case] = _EMPTY_NOTE
    if not gathered:
        reasons = "; ".join(f"{case}: {reason}" for case, reason in list(skipped.items())[:5])
        raise ScreenerError(f"no case can be evaluated ({reasons or 'the folders hold no maps'})")
    edges = {}
    for method, samples in gathered.items():
        classes = [np.concatenate(samples.annotated), np.concatenate(samples.other)]
        chosen = [thresholds[method]] if method in thresholds else []
        edges[method] = quantile_edges(classes, include=[*samples.extremes, *chosen])
    return edges, notes


_Sample = tuple[NDArray[np.float32], NDArray[np.float32], tuple[float, float]]


def _sample_case(files: CaseFiles, reading: _Reading, size: int) -> dict[str, _Sample]:
    """Up to `size` scores of annotated and of other voxels, and the extremes, by method."""
    labels = load_labels(files, reading.labels)
    rng = np.random.default_rng([reading.seed, zlib.crc32(files.case.encode())])
    # The same voxels for every method, so that no method's bins are luckier than another's.
    annotated = _draw(np.flatnonzero(labels.annotated), size, rng)
    other = _draw(np.flatnonzero(~labels.annotated), size, rng)
    return {
        method: (scores[annotated], scores[other], (float(scores.min()), float(scores.max())))
        for method, scores in iterate_scores(files, labels, reading.hu_histogram)
    }


def _draw(places: NDArray[np.intp], size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return places if places.size <= size else places[rng.integers(0, places.size, size)]


def _count_case(files: CaseFiles, reading: _Reading, edges: Edges) -> dict[str, CaseHistogram]:
    """Second pass: histogram of every method, in 32 bits as all cases' stay in memory."""
    labels = load_labels(files, reading.labels)
    counted = {}
    for method, scores in iterate_scores(files, labels, reading.hu_histogram):
        full = CaseHistogram.count(files.case, scores, labels.annotated, edges[method])
        counted[method] = CaseHistogram(
            files.case, full.positive.astype(np.uint32), full.negative.astype(np.uint32)
        )
    return counted


def _attempt(function: Callable[[CaseFiles], Result], files: CaseFiles) -> Result | CaseError:
    try:
        return function(files)
    except CaseError as error:
        return error


def _for_each(
    function: Callable[[CaseFiles], Result],
    cases: Sequence[CaseFiles],
    processes: int,
    title: str,
) -> Iterator[Result | CaseError]:
    """Applies a function to each case in order; a case's own error is its result."""
    attempt = partial(_attempt, function)
    if processes <= 1 or len(cases) < 2:
        yield from tqdm(map(attempt, cases), title, len(cases), disable=None)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(cases)), mp_context=context) as pool:
        yield from tqdm(pool.map(attempt, cases), title, len(cases), disable=None)


def _summarise(
    histograms: Sequence[CaseHistogram],
    edges: NDArray[np.float32],
    threshold: float | None,
    bootstrap: bool,
    seed: int,
) -> MethodResult:
    pooled = merge_histograms(histograms)
    scores = score_histogram(pooled, edges, threshold)
    at = None if np.isnan(scores.threshold) else scores.threshold
    return MethodResult(
        edges,
        pooled,
        scores,
        bootstrap_intervals(histograms, edges, threshold, seed=seed) if bootstrap else {},
        {histogram.case: score_histogram(histogram, edges, at) for histogram in histograms},
    )
