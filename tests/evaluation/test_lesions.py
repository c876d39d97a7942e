from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.evaluation.histograms import BinIndex, CaseHistogram, quantile_edges
from screener_nnu.evaluation.lesions import LesionHistograms, find_lesions
from screener_nnu.evaluation.metrics import MAX_FPR, area_under_roc


def make_volume(seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (9, 11, 8)
    annotation = ndimage.binary_dilation(rng.random(shape) < 0.01)
    scores = rng.normal(size=shape) + rng.uniform(0.5, 2.5) * annotation
    scores = np.round(scores * 2) / 2 if ties else scores
    counted = (rng.random(shape) < 0.9) | annotation
    return scores.astype(np.float32), annotation, counted


def explicit_aupro(volumes: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> float:
    """Loops over every threshold and every component."""
    components = []
    for number, (_, annotation, _) in enumerate(volumes):
        labelled, lesions = ndimage.label(annotation, np.ones((3, 3, 3)))
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


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seeds", [[0], [1, 2, 3]])
def test_aupro_equals_a_loop_over_thresholds_and_components(seeds: list[int], ties: bool) -> None:
    volumes = [make_volume(seed, ties) for seed in seeds]
    edges = quantile_edges([s[c] for s, _, c in volumes])
    overlap, negative = np.zeros(edges.size), np.zeros(edges.size)
    for scores, annotation, counted in volumes:
        lesions = LesionHistograms.count(
            find_lesions(annotation), BinIndex(edges).find(scores[annotation])
        )
        overlap += lesions.overlap(edges.size)
        histogram = CaseHistogram.count("a", scores[counted], annotation[counted], edges)
        negative += histogram.negative
    assert overlap.sum() > len(seeds)
    aupro = float(area_under_roc(overlap, negative, MAX_FPR))
    assert aupro == pytest.approx(explicit_aupro(volumes), abs=1e-12)


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
