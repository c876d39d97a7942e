"""Figures of whole cases beside scikit-learn, and beside loops over thresholds and samples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    recall_score,
    roc_auc_score,
    roc_curve,
)

from screener_nnu.evaluation.bootstrap import case_weights
from screener_nnu.evaluation.case_figures import (
    FLAGGING,
    RANKING,
    Resampling,
    case_figures,
    roc_of_cases,
    youden_threshold,
)


def make_cases(ties: bool, cases: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(cases)
    abnormal = rng.random(cases) < 0.4
    scores = rng.normal(size=cases) + abnormal
    scores = np.round(scores) if ties else scores
    return scores, abnormal, (scores + 0.3 * rng.normal(size=cases) > 0.7).astype(float)


def expected(scores: np.ndarray, abnormal: np.ndarray, flagged: np.ndarray) -> dict[str, float]:
    return {
        "auroc": roc_auc_score(abnormal, scores),
        "average_precision": average_precision_score(abnormal, scores),
        "sensitivity": recall_score(abnormal, flagged),
        "specificity": recall_score(~abnormal, 1 - flagged),
        "accuracy": accuracy_score(abnormal, flagged),
        "balanced_accuracy": balanced_accuracy_score(abnormal, flagged),
    }


@pytest.mark.parametrize("ties", [False, True])
def test_every_figure_equals_that_of_scikit_learn(ties: bool) -> None:
    scores, abnormal, flagged = make_cases(ties)
    figures = case_figures(scores, abnormal, flagged, np.ones((1, scores.size)))
    assert set(figures) == {*RANKING, *FLAGGING}
    for name, value in expected(scores, abnormal, flagged).items():
        assert figures[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("ties", [False, True])
def test_weights_are_cases_that_stand_several_times(ties: bool) -> None:
    scores, abnormal, flagged = make_cases(ties)
    # More samples than are computed together.
    weights = case_weights(scores.size, 230, seed=3)
    figures = case_figures(scores, abnormal, flagged, weights)
    for sample in (0, 99, 100, 229):
        times = weights[sample].astype(int)
        drawn = (np.repeat(values, times) for values in (scores, abnormal, flagged))
        for name, value in expected(*drawn).items():
            assert figures[name][sample] == pytest.approx(value, abs=1e-12), name


def test_cases_whose_flag_is_unknown_count_in_no_share() -> None:
    scores, abnormal, flagged = make_cases(ties=False)
    flagged[::3] = np.nan
    known = np.isfinite(flagged)
    figures = case_figures(scores, abnormal, flagged, np.ones((1, scores.size)))
    shares = expected(scores[known], abnormal[known], flagged[known])
    for name in FLAGGING:
        assert figures[name] == pytest.approx(shares[name], abs=1e-12)
    assert figures["auroc"] == pytest.approx(roc_auc_score(abnormal, scores), abs=1e-12)
    unknown = np.full(scores.size, np.nan)
    figures = case_figures(scores, abnormal, unknown, np.ones((1, scores.size)))
    assert all(np.isnan(figures[name][0]) for name in FLAGGING)


@pytest.mark.parametrize("abnormal", [False, True])
def test_one_kind_alone_is_undefined_and_not_zero(abnormal: bool) -> None:
    flagged = np.array([0.0, 1.0, 1.0, 1.0])
    figures = case_figures(np.arange(4.0), np.full(4, abnormal), flagged, np.ones((1, 4)))
    undefined = {"auroc", "average_precision", "balanced_accuracy"}
    undefined.add("specificity" if abnormal else "sensitivity")
    assert {name for name, value in figures.items() if np.isnan(value[0])} == undefined
    assert figures["accuracy"] == (0.75 if abnormal else 0.25)


def test_whole_groups_are_drawn() -> None:
    groups = ["p2", "p1", "p2", "alone", "p1", "p2"]
    resampling = Resampling.of(groups, samples=4000)
    assert resampling.units == 3 and resampling.weights.shape == (4000, 6)
    np.testing.assert_array_equal(resampling.weights[:, 0], resampling.weights[:, 2])
    np.testing.assert_array_equal(resampling.weights[:, 1], resampling.weights[:, 4])
    # Three groups with replacement: each is drawn once on average, with variance 2/3.
    of_groups = resampling.weights[:, [0, 1, 3]]
    np.testing.assert_array_equal(of_groups.sum(axis=1), 3)
    np.testing.assert_allclose(of_groups.mean(axis=0), 1, atol=0.05)
    np.testing.assert_allclose(of_groups.var(axis=0), 2 / 3, atol=0.06)


def test_groups_widen_the_interval_that_their_cases_alone_would_give() -> None:
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(20), 10)
    abnormal = patients % 2 == 0
    scores = rng.normal(size=20)[patients] + 0.7 * abnormal + 0.05 * rng.normal(size=200)
    widths = []
    for groups in ([str(p) for p in patients], [str(c) for c in range(200)]):
        resampling = Resampling.of(groups)
        drawn = case_figures(scores, abnormal, np.full(200, np.nan), resampling.weights)
        interval = resampling.interval(drawn["auroc"])
        widths.append(interval.high - interval.low)
    assert widths[0] > 2 * widths[1]


def test_one_group_alone_has_no_interval() -> None:
    resampling = Resampling.of(["p"] * 5)
    assert np.isnan(resampling.interval(np.ones(1000)).low)


@pytest.mark.parametrize("ties", [False, True])
def test_curve_and_best_threshold_against_a_loop(ties: bool) -> None:
    scores, abnormal, _ = make_cases(ties)
    false, true, _ = roc_curve(abnormal, scores, drop_intermediate=False)
    curve = roc_of_cases(scores, abnormal)
    np.testing.assert_allclose(curve, (false, true), atol=1e-12)
    indices = {
        threshold: (scores >= threshold)[abnormal].mean() - (scores >= threshold)[~abnormal].mean()
        for threshold in scores
    }
    threshold, index = youden_threshold(scores, abnormal)
    best = max(indices.values())
    assert index == pytest.approx(best, abs=1e-12)
    assert threshold == max(t for t, value in indices.items() if value >= best - 1e-12)
