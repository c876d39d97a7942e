from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from screener_nnu.evaluation.bootstrap import bootstrap_intervals, coarse_starts
from screener_nnu.evaluation.histograms import CaseHistogram, merge_histograms, quantile_edges


def make_cases(
    number: int = 8, voxels: int = 400
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[CaseHistogram]]:
    rng = np.random.default_rng(0)
    annotated = rng.random((number, voxels)) < rng.uniform(0.02, 0.2, (number, 1))
    shift = rng.uniform(0.2, 2.5, (number, 1))
    scores = (rng.normal(size=(number, voxels)) + shift * annotated).astype(np.float32)
    edges = quantile_edges([scores[annotated], scores[~annotated]], include=[1.0])
    cases = [CaseHistogram.count(f"case{i}", scores[i], annotated[i], edges) for i in range(number)]
    return scores, annotated, edges, cases


def test_intervals_equal_resampling_by_hand() -> None:
    scores, annotated, edges, cases = make_cases()
    intervals = bootstrap_intervals(cases, edges, threshold=1.0, samples=600, seed=4)
    rng = np.random.default_rng(99)
    drawn: dict[str, list[float]] = {"auroc": [], "average_precision": [], "dice": []}
    for _ in range(600):
        chosen = rng.integers(0, len(cases), len(cases))
        x, y = scores[chosen].ravel(), annotated[chosen].ravel()
        drawn["auroc"].append(roc_auc_score(y, x))
        drawn["average_precision"].append(average_precision_score(y, x))
        drawn["dice"].append(2 * (y & (x >= 1)).sum() / (y.sum() + (x >= 1).sum()))
    for name, values in drawn.items():
        low, high = np.percentile(values, [2.5, 97.5])
        assert intervals[name].low == pytest.approx(low, abs=0.12 * (high - low)), name
        assert intervals[name].high == pytest.approx(high, abs=0.12 * (high - low)), name


def test_same_weights_give_the_same_figures_as_sklearn() -> None:
    scores, annotated, edges, cases = make_cases(number=3)
    intervals = bootstrap_intervals(cases, edges, threshold=1.0, samples=1, seed=2)
    weights = np.random.default_rng(2).multinomial(3, np.full(3, 1 / 3), size=1)[0]
    chosen = np.repeat(np.arange(3), weights)
    x, y = scores[chosen].ravel(), annotated[chosen].ravel()
    assert intervals["auroc"].low == pytest.approx(roc_auc_score(y, x), abs=1e-6)
    precision = average_precision_score(y, x)
    assert intervals["average_precision"].low == pytest.approx(precision, abs=1e-4)
    dice = 2 * (y & (x >= 1)).sum() / (y.sum() + (x >= 1).sum())
    assert intervals["dice"].low == pytest.approx(dice, abs=1e-12)


def test_seed_decides_and_narrows_with_equal_cases() -> None:
    _, _, edges, cases = make_cases()
    first = bootstrap_intervals(cases, edges, samples=50, seed=1)
    assert first == bootstrap_intervals(cases, edges, samples=50, seed=1)
    assert first != bootstrap_intervals(cases, edges, samples=50, seed=2)
    assert set(first) == {"auroc", "auroc_fpr30", "average_precision", "best_dice", "best_iou"}
    equal = bootstrap_intervals([cases[0]] * 4, edges, samples=50)
    for interval in equal.values():
        assert interval.low == pytest.approx(interval.high, abs=1e-12)


def test_one_case_has_no_interval() -> None:
    _, _, edges, cases = make_cases()
    assert all(np.isnan(i.low) for i in bootstrap_intervals(cases[:1], edges).values())


def test_threshold_above_all_scores_finds_nothing() -> None:
    _, _, edges, cases = make_cases()
    interval = bootstrap_intervals(cases, edges, threshold=1e6, samples=20)["dice"]
    assert (interval.low, interval.high) == (0, 0)


def test_coarse_bins_share_both_classes_out_and_keep_the_threshold() -> None:
    _, _, edges, cases = make_cases()
    pooled = merge_histograms(cases)
    starts = coarse_starts(pooled, 50, keep=777)
    assert starts[0] == 0 and 777 in starts and starts.size <= 51
    for counts in (pooled.positive, pooled.negative):
        coarse = np.add.reduceat(counts, starts)
        assert coarse.sum() == counts.sum() and coarse.max() <= 0.05 * counts.sum()
