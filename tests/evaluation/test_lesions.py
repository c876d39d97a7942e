from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.evaluation.histograms import BinIndex, CaseHistogram, quantile_edges
from screener_nnu.evaluation.lesions import LesionHistograms, find_lesions
from screener_nnu.evaluation.metrics import MAX_FPR, area_under_roc

SHAPES = [(9, 11, 8), (1, 34, 27)]


def make_volume(
    seed: int, ties: bool = False, shape: tuple[int, ...] = SHAPES[0]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    annotation = ndimage.binary_dilation(rng.random(shape) < 0.01)
    scores = rng.normal(size=shape) + rng.uniform(0.5, 2.5) * annotation
    scores = np.round(scores * 2) / 2 if ties else scores
    counted = (rng.random(shape) < 0.9) | annotation
    return scores.astype(np.float32), annotation, counted


def explicit_aupro(volumes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """Loops over every threshold and every component, of pictures in the 8-neighbourhood."""
    if volumes[0][0].shape[0] == 1:
        volumes = [(s[0], a[0], c[0]) for s, a, c in volumes]
    components = []
    for number, (_, annotation, _) in enumerate(volumes):
        labelled, lesions = ndimage.label(annotation, np.ones((3,) * annotation.ndim))
        components += [(number, labelled == lesion) for lesion in range(1, lesions + 1)]
    thresholds = np.unique(np.concatenate([s[c] for s, _, c in volumes]))[::-1]
    others = sum((c & ~a).sum() for _, a, c in volumes)
    fpr, overlap = [0.0], [0.0]
    for threshold in thresholds:
        false = sum(((s >= threshold) & c & ~a).sum() for s, a, c in volumes)
        fpr.append(false / others)
        shares = [(volumes[n][0][lesion] >= threshold).mean() for n, lesion in components]
        overlap.append(float(np.mean(shares)))
    x, y = np.array(fpr), np.array(overlap)
    inside = x < 0.3
    x_end = np.append(x[inside], 0.3)
    y_end = np.append(y[inside], np.interp(0.3, x, y))
    return float(np.trapezoid(y_end, x_end)) / 0.3


def streamed_aupro(volumes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    edges = quantile_edges([s[c] for s, _, c in volumes])
    overlap, negative = np.zeros(edges.size), np.zeros(edges.size)
    for scores, annotation, counted in volumes:
        lesions = LesionHistograms.count(
            find_lesions(annotation), BinIndex(edges).find(scores[annotation])
        )
        overlap += lesions.overlap(edges.size)
        histogram = CaseHistogram.count("a", scores[counted], annotation[counted], edges)
        negative += histogram.negative
    assert overlap.sum() > len(volumes)
    return float(area_under_roc(overlap, negative, MAX_FPR))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seeds", [[0], [1, 2, 3]])
def test_aupro_equals_a_loop_over_thresholds_and_components(
    seeds: list[int], ties: bool, shape: tuple[int, ...]
) -> None:
    volumes = [make_volume(seed, ties, shape) for seed in seeds]
    assert streamed_aupro(volumes) == pytest.approx(explicit_aupro(volumes), abs=1e-12)


@pytest.mark.parametrize("shape", [(20, 40, 30), (1, 200, 150)])
def test_aupro_of_a_perfect_and_of_a_random_map(shape: tuple[int, ...]) -> None:
    scores, annotation, counted = make_volume(0, shape=shape)
    perfect = annotation + 0.5 * np.random.default_rng(1).random(shape)
    assert streamed_aupro([(perfect.astype(np.float32), annotation, counted)]) == 1.0
    # The overlap of a map that knows nothing rises as the false positive rate does.
    chance = np.random.default_rng(2).random(shape).astype(np.float32)
    assert streamed_aupro([(chance, annotation, counted)]) == pytest.approx(0.3 / 2, abs=0.02)


def test_lesions_are_joined_over_corners_and_counted_one_by_one() -> None:
    annotation = np.zeros((5, 6, 7), dtype=bool)
    annotation[1, 1, 1] = annotation[2, 2, 2] = annotation[2, 2, 3] = True
    annotation[4, 5, 6] = annotation[4, 5, 5] = True
    lesions = find_lesions(annotation)
    np.testing.assert_array_equal(lesions.sizes, [3, 2])
    np.testing.assert_array_equal(lesions.of_voxel, [0, 0, 0, 1, 1])
    histograms = LesionHistograms.count(lesions, np.array([4, 4, 0, 2, 4], dtype=np.int32))
    np.testing.assert_allclose(histograms.overlap(6), [1 / 3, 0, 1 / 2, 0, 2 / 3 + 1 / 2, 0])
    assert histograms.counts.sum() == 5


def test_no_annotation_has_no_lesion() -> None:
    lesions = find_lesions(np.zeros((3, 4, 5), dtype=bool))
    histograms = LesionHistograms.count(lesions, np.zeros(0, dtype=np.int32))
    assert lesions.sizes.size == 0
    np.testing.assert_array_equal(histograms.overlap(3), np.zeros(3))
