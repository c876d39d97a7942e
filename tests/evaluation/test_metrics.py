from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, jaccard_score, roc_auc_score, roc_curve

from screener_nnu.evaluation.histograms import CaseHistogram, quantile_edges
from screener_nnu.evaluation.metrics import (
    lowest_above,
    score_histogram,
    weighted_auroc,
)


def make_data(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    annotated = rng.random(3000) < 0.1
    scores = rng.normal(size=3000) + 1.2 * annotated
    if kind == "ties":
        scores = np.round(scores * 2) / 2
    elif kind == "skewed":
        scores = np.exp(4 * scores)
    elif kind == "few positives":
        annotated[:] = False
        annotated[[5, 77, 1500]] = True
    elif kind == "worse than chance":
        scores = -scores
    elif kind == "perfect":
        scores = annotated + 0.1 * rng.random(3000)
    elif kind == "constant":
        scores = np.full(3000, 4.5)
    return scores.astype(np.float32), annotated


KINDS = ["continuous", "ties", "skewed", "few positives"] + [
    "worse than chance",
    "perfect",
    "constant",
]


def streamed(
    scores: np.ndarray, annotated: np.ndarray, threshold: float | None = None, bins: int = 65_536
) -> dict[str, float]:
    include = [scores.min()] + ([] if threshold is None else [lowest_above(threshold)])
    edges = quantile_edges([scores[annotated], scores[~annotated]], bins, include)
    return score_histogram(CaseHistogram.count("a", scores, annotated, edges), edges, threshold)


def explicit_partial_auroc(scores: np.ndarray, annotated: np.ndarray, limit: float) -> float:
    fpr, tpr, _ = roc_curve(annotated, scores, drop_intermediate=False)
    inside = fpr < limit
    x = np.append(fpr[inside], limit)
    y = np.append(tpr[inside], np.interp(limit, fpr, tpr))
    # At a vertical step the interpolation takes its top, which has no area.
    return float(np.trapezoid(y, x)) / limit


def explicit_dice(scores: np.ndarray, annotated: np.ndarray, threshold: float) -> float:
    found = scores > np.float32(threshold)
    return 2 * (found & annotated).sum() / (found.sum() + annotated.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_is_exact_when_each_value_has_its_bin(kind: str) -> None:
    scores, annotated = make_data(kind)
    result = streamed(scores, annotated)
    assert result["voxels"] == 3000 and result["annotated"] == annotated.sum()
    assert result["auroc"] == pytest.approx(roc_auc_score(annotated, scores), abs=1e-12)
    precision = average_precision_score(annotated, scores)
    assert result["average_precision"] == pytest.approx(precision, abs=1e-12)
    partial = explicit_partial_auroc(scores, annotated, 0.3)
    assert result["auroc_fpr30"] == pytest.approx(partial, abs=1e-12)
    below = np.nextafter(np.unique(scores), np.float32(-np.inf))
    dice = {t: explicit_dice(scores, annotated, t) for t in below}
    assert result["best_dice"] == pytest.approx(max(dice.values()), abs=1e-12)
    assert dice[np.float32(result["best_threshold"])] == pytest.approx(
        result["best_dice"], abs=1e-12
    )
    assert (result["threshold"], result["dice"]) == (result["best_threshold"], result["best_dice"])
    overlap = max(jaccard_score(annotated, scores > t) for t in below[:: max(below.size // 200, 1)])
    assert result["best_iou"] >= overlap - 1e-12
    at_best = jaccard_score(annotated, scores > np.float32(result["best_threshold"]))
    assert result["best_iou"] == result["iou"] == pytest.approx(at_best, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [-0.3, 0.5, 2.25, 1e9])
def test_dice_and_iou_at_a_given_threshold(kind: str, threshold: float) -> None:
    scores, annotated = make_data(kind)
    result = streamed(scores, annotated, threshold)
    assert result["threshold"] == threshold
    assert result["dice"] == pytest.approx(explicit_dice(scores, annotated, threshold), abs=1e-12)
    overlap = jaccard_score(annotated, scores > np.float32(threshold))
    assert result["iou"] == pytest.approx(overlap, abs=1e-12)


@pytest.mark.parametrize("kind", ["continuous", "skewed"])
def test_more_values_than_bins_stay_close(kind: str) -> None:
    rng = np.random.default_rng(5)
    annotated = rng.random(300_000) < 0.01
    scores = (rng.normal(size=300_000) + 1.5 * annotated).astype(np.float32)
    if kind == "skewed":
        scores = np.exp(4 * scores)
    result = streamed(scores, annotated, bins=8192)
    assert result["auroc"] == pytest.approx(roc_auc_score(annotated, scores), abs=3e-6)
    precision = average_precision_score(annotated, scores)
    assert result["average_precision"] == pytest.approx(precision, rel=5e-3)
    partial = explicit_partial_auroc(scores, annotated, 0.3)
    assert result["auroc_fpr30"] == pytest.approx(partial, abs=1e-5)
    at_best = explicit_dice(scores, annotated, result["best_threshold"])
    assert result["best_dice"] == pytest.approx(at_best, abs=1e-12)


@pytest.mark.parametrize("all_annotated", [False, True])
def test_one_class_alone_is_undefined(all_annotated: bool) -> None:
    scores = np.linspace(0, 1, 50, dtype=np.float32)
    result = streamed(scores, np.full(50, all_annotated))
    assert np.isnan(result["auroc"]) and np.isnan(result["auroc_fpr30"])
    assert np.isnan(result["average_precision"]) != all_annotated
    assert np.isnan(result["dice"]) != all_annotated
    assert np.isnan(result["iou"]) != all_annotated
    assert np.isnan(result["best_threshold"]) != all_annotated


@pytest.mark.parametrize("levels", [3, 50, 10_000])
def test_weighted_auroc_equals_scikit_learn_on_single_voxels(levels: int) -> None:
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, 400).astype(np.float32)
    positive, negative = rng.integers(0, 4, 400), rng.integers(0, 9, 400)
    voxels = np.concatenate([np.repeat(scores, positive), np.repeat(scores, negative)])
    labels = np.repeat([1, 0], [positive.sum(), negative.sum()])
    expected = roc_auc_score(labels, voxels)
    assert weighted_auroc(scores, positive, negative) == pytest.approx(expected, abs=1e-12)


def test_fractions_of_voxels_are_weights() -> None:
    rng = np.random.default_rng(1)
    scores, positive, negative = rng.normal(size=300), rng.random(300), rng.random(300)
    expected = roc_auc_score(
        np.repeat([1, 0], 300),
        np.tile(scores, 2),
        sample_weight=np.concatenate([positive, negative]),
    )
    assert weighted_auroc(scores, positive, negative) == pytest.approx(expected, abs=1e-12)


def test_infinite_scores_are_the_lowest_and_the_highest() -> None:
    scores = np.array([-np.inf, 0.0, np.inf])
    assert weighted_auroc(scores, np.array([0, 0, 1]), np.array([1, 1, 0])) == 1.0
    assert weighted_auroc(scores, np.array([1, 0, 0]), np.array([0, 1, 1])) == 0.0


def test_weighted_auroc_of_one_class_alone_is_undefined() -> None:
    assert np.isnan(weighted_auroc(np.arange(3.0), np.zeros(3), np.ones(3)))
    assert np.isnan(weighted_auroc(np.arange(3.0), np.ones(3), np.zeros(3)))


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_auroc_of_resampled_cases(ties: bool) -> None:
    rng = np.random.default_rng(0)
    ill = rng.random(40) < 0.4
    scores = rng.normal(size=40) + ill
    scores = np.round(scores) if ties else scores
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    areas = weighted_auroc(scores, weights * ill, weights * ~ill)
    for area, row in zip(areas, weights.astype(int), strict=True):
        expected = roc_auc_score(np.repeat(ill, row), np.repeat(scores, row))
        assert area == pytest.approx(expected, abs=1e-12)
