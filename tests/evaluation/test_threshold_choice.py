from __future__ import annotations

import itertools

import numpy as np
import pytest

from screener_nnu.evaluation.histograms import CaseHistogram, quantile_edges
from screener_nnu.evaluation.threshold_choice import (
    bootstrap_choice,
    choose_cases,
    dice_after_choice,
)


def make_cases(ill: int = 4, healthy: int = 2) -> tuple[np.ndarray, np.ndarray, list]:
    rng = np.random.default_rng(3)
    number = ill + healthy
    annotated = rng.random((number, 300)) < 0.1
    annotated[ill:] = False
    scores = rng.normal(size=(number, 300)) + rng.uniform(0.5, 3, (number, 1)) * annotated
    scores = scores.astype(np.float32)
    edges = quantile_edges([scores.ravel()])
    histograms = [
        CaseHistogram.count(f"case{i}", scores[i], annotated[i], edges) for i in range(number)
    ]
    return scores, annotated, histograms


def dice_of(scores: np.ndarray, annotated: np.ndarray, threshold: float) -> float:
    found = scores >= threshold
    return 2 * (found & annotated).sum() / (found.sum() + annotated.sum())


def best_threshold(scores: np.ndarray, annotated: np.ndarray) -> float:
    thresholds = np.unique(scores)[::-1]
    return thresholds[int(np.argmax([dice_of(scores, annotated, t) for t in thresholds]))]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_dice_equals_choosing_and_measuring_by_hand(k: int) -> None:
    scores, annotated, histograms = make_cases()
    result = dice_after_choice(histograms, k, draws=12, seed=7)
    pooled, alone = [], {i: [] for i in range(6)}
    for chosen in choose_cases(np.arange(4), k, 12, 7):
        threshold = best_threshold(scores[chosen], annotated[chosen])
        rest = np.setdiff1d(np.arange(6), chosen)
        pooled.append(dice_of(scores[rest], annotated[rest], threshold))
        for case in rest:
            alone[case].append(dice_of(scores[case], annotated[case], threshold))
    assert result.mean == pytest.approx(np.mean(pooled), abs=1e-12)
    assert result.spread == pytest.approx(np.std(pooled), abs=1e-12)
    for case in range(4):
        assert result.cases[f"case{case}"] == pytest.approx(np.mean(alone[case]), abs=1e-12)
    assert np.isnan(result.cases["case5"])


def test_choices_are_seeded_distinct_and_cover_the_annotated_cases() -> None:
    ill = np.array([1, 4, 6, 7])
    chosen = choose_cases(ill, 2, 200, 0)
    np.testing.assert_array_equal(chosen, choose_cases(ill, 2, 200, 0))
    assert (chosen != choose_cases(ill, 2, 200, 1)).any()
    drawn = {tuple(sorted(row)) for row in chosen.tolist()}
    assert drawn == set(itertools.combinations(ill.tolist(), 2))


def test_too_few_annotated_cases_are_undefined() -> None:
    _, _, histograms = make_cases(ill=3, healthy=4)
    assert np.isfinite(dice_after_choice(histograms, 2).mean)
    result = dice_after_choice(histograms, 3)
    assert np.isnan([result.mean, result.spread, *result.cases.values()]).all()
    positive = np.stack([h.positive for h in histograms]).astype(float)
    assert np.isnan(bootstrap_choice(positive, positive, 3, 5, 0)).all()


def test_the_bootstrap_measures_on_no_case_that_chose_the_threshold() -> None:
    # One bin a case in which all its annotated voxels lie, so that a Dice names its cases.
    cases = 5
    positive = np.eye(cases)
    negative = np.zeros((cases, cases))
    dice = bootstrap_choice(positive, negative, 4, 40, 0)
    chosen = choose_cases(np.arange(cases), 4, 40, 0)
    for value, members in zip(dice, chosen, strict=True):
        (left,) = np.setdiff1d(np.arange(cases), members)
        assert value == (1.0 if left > members.min() else 0.0)


def test_the_bootstrap_spreads_around_the_mean_over_draws() -> None:
    _, _, histograms = make_cases(ill=8)
    positive = np.stack([h.positive for h in histograms]).astype(float)
    negative = np.stack([h.negative for h in histograms]).astype(float)
    drawn = bootstrap_choice(positive, negative, 1, 400, 0)
    low, high = np.percentile(drawn, [2.5, 97.5])
    result = dice_after_choice(histograms, 1)
    assert low < result.mean < high
    assert drawn.std() > result.spread
