from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.evaluation.components import detect
from screener_nnu.evaluation.froc import (
    FALSE_POSITIVES_PER_SCAN,
    THRESHOLD_FPR,
    FrocCounts,
    count_froc,
    froc_curve,
    froc_figures,
    least_voxels,
    place_thresholds,
)
from screener_nnu.evaluation.lesions import find_lesions

NEIGHBOURS = np.ones((3, 3, 3))


def make_case(seed: int, smooth: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shape = (14, 17, 12)
    annotation = ndimage.binary_dilation(rng.random(shape) < 0.004, iterations=1 + seed % 2)
    annotation[0, 0, 0] = True
    noise = ndimage.gaussian_filter(rng.normal(size=shape), smooth)
    scores = (noise / noise.std() + 2.5 * annotation).astype(np.float32)
    counted = (rng.random(shape) < 0.95) | annotation
    return scores, annotation, counted


def explicit_counts(
    scores: np.ndarray, annotation: np.ndarray, counted: np.ndarray, threshold: float, least: int
) -> tuple[int, int]:
    detections, number = ndimage.label((scores >= threshold) & counted, NEIGHBOURS)
    lesions, lesion_number = ndimage.label(annotation, NEIGHBOURS)
    found: set[int] = set()
    false_positives = 0
    for detection in range(1, number + 1):
        voxels = detections == detection
        if voxels.sum() < least:
            continue
        if (voxels & annotation).sum() >= 0.1 * voxels.sum():
            found |= set(np.unique(lesions[voxels & annotation]).tolist())
        else:
            false_positives += 1
    large = [n for n in range(1, lesion_number + 1) if (lesions == n).sum() >= least]
    return len(found & set(large)), false_positives


@pytest.mark.parametrize("least", [1, 4, 12])
@pytest.mark.parametrize(("seed", "smooth"), [(0, 0.0), (1, 0.7), (2, 1.2), (3, 2.0)])
def test_counts_equal_labelling_at_every_threshold(seed: int, smooth: float, least: int) -> None:
    scores, annotation, counted = make_case(seed, smooth)
    thresholds = np.unique(np.quantile(scores, [0.3, 0.6, 0.8, 0.9, 0.95, 0.99, 1])).astype("f4")
    thresholds = np.append(thresholds, np.float32(99))
    lesions = find_lesions(annotation)
    counts = count_froc(scores[counted], counted, annotation[counted], lesions, thresholds, least)
    expected = [explicit_counts(scores, annotation, counted, t, least) for t in thresholds]
    np.testing.assert_array_equal(counts.found, [found for found, _ in expected])
    np.testing.assert_array_equal(counts.false_positives, [false for _, false in expected])
    assert counts.lesions == (lesions.sizes >= least).sum()
    assert counts.false_positives.max() > 0 and counts.found.max() > 0 == counts.found[-1]


@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_components_are_those_of_labelling_anew(smooth: float) -> None:
    scores, _, _ = make_case(5, smooth)
    thresholds = np.quantile(scores, [0.5, 0.7, 0.9, 0.97]).astype(np.float32)
    above = scores >= thresholds[0]
    reached = np.searchsorted(thresholds, scores[above], side="right")
    detections = detect(above, thresholds.size - reached, thresholds.size)
    places = np.flatnonzero(above)[detections.order]
    for component, threshold in zip(detections.components(), thresholds[::-1], strict=True):
        labelled, number = ndimage.label(scores >= threshold, NEIGHBOURS)
        present = places[: component.size]
        np.testing.assert_array_equal(np.sort(present), np.flatnonzero(scores >= threshold))
        pairs = np.unique(np.stack([component, labelled.ravel()[present]]), axis=1)
        assert pairs.shape[1] == number == component.max() + 1


def test_thresholds_have_the_stated_false_positive_rates() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=400_000).astype(np.float32)
    weights = np.where(np.arange(scores.size) < 100_000, 3.0, 1.0)
    thresholds = place_thresholds(scores, weights)
    rates = [weights[scores >= t].sum() / weights.sum() for t in thresholds[::-1]]
    reached = THRESHOLD_FPR[THRESHOLD_FPR > 1e-4]
    np.testing.assert_allclose(rates[-reached.size :], reached, rtol=0.05)
    assert (np.diff(thresholds) > 0).all()
    np.testing.assert_array_equal(place_thresholds(np.full(9, 2.0, np.float32), np.ones(9)), [2])


def test_sensitivities_are_read_off_the_curve() -> None:
    one = FrocCounts(4, np.array([4, 3, 1, 0]), np.array([2, 1, 0, 0]))
    other = FrocCounts(0, np.zeros(4, int), np.array([20, 1, 1, 0]))
    sensitivity, false_positives = froc_curve([one, other], np.ones(2))
    np.testing.assert_allclose(sensitivity, [1, 0.75, 0.25, 0])
    np.testing.assert_allclose(false_positives, [11, 1, 0.5, 0])
    figures = froc_figures([one, other], np.ones(2))
    expected = [0, 0, 0.25, 0.75, 0.75, 0.75, 0.75]
    named = {
        f"sensitivity_fp{f:g}": s for f, s in zip(FALSE_POSITIVES_PER_SCAN, expected, strict=True)
    }
    assert {k: float(v) for k, v in figures.items() if k != "froc"} == named
    assert figures["froc"] == pytest.approx(np.mean(expected))


def test_resampled_cases_equal_repeated_ones_and_no_lesion_is_undefined() -> None:
    rng = np.random.default_rng(1)
    cases = [
        FrocCounts(5, np.sort(rng.integers(0, 6, 9))[::-1], np.sort(rng.integers(0, 30, 9))[::-1])
        for _ in range(4)
    ]
    weights = np.array([[0, 2, 1, 1], [4, 0, 0, 0]], dtype=float)
    figures = froc_figures(cases, weights)
    repeated = [cases[1], cases[1], cases[2], cases[3]]
    for name, value in froc_figures(repeated, np.ones(4)).items():
        assert figures[name][0] == pytest.approx(value)
    healthy = FrocCounts(0, np.zeros(3, int), np.array([5, 2, 0]))
    assert all(np.isnan(v) for v in froc_figures([healthy], np.ones(1)).values())


def test_a_detection_that_fills_the_body_finds_nothing() -> None:
    annotation = np.zeros((10, 10, 10), dtype=bool)
    annotation[4:6, 4:6, 4:6] = True
    counted = np.ones_like(annotation)
    lesions = find_lesions(annotation)
    scores = np.zeros(1000, dtype=np.float32)
    counts = count_froc(scores, counted, annotation.ravel(), lesions, np.zeros(1, np.float32), 1)
    assert (counts.found[0], counts.false_positives[0]) == (0, 1)


def test_least_volume_in_voxels() -> None:
    assert least_voxels(30, (1, 1, 1)) == 30
    assert least_voxels(30, (2.5, 0.8, 1.1)) == 14
    assert least_voxels(30, (5, 5, 5)) == 1
