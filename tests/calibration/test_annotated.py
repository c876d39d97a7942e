"""Thresholds of annotated cases against a search over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from screener_nnu.calibration.annotated import RECALLS, AnnotatedThresholds, choose_thresholds
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.histograms import CaseHistogram

EDGES = np.linspace(-4, 8, 240).astype(np.float32)


def cases(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores and annotation of cases with lesions of very different size and height."""
    rng = np.random.default_rng(11)
    made = []
    for case in range(number):
        annotated = np.zeros(3000, dtype=bool)
        annotated[: 20 * (case + 1) ** 2] = True
        made.append((rng.normal(0, 1, 3000) + annotated * (1.5 + 0.4 * case), annotated))
    return made


def histograms(made: list[tuple[np.ndarray, np.ndarray]]) -> list[CaseHistogram]:
    return [
        CaseHistogram.count(str(place), scores.astype(np.float32), annotated, EDGES)
        for place, (scores, annotated) in enumerate(made)
    ]


def figures(scores: np.ndarray, annotated: np.ndarray, threshold: float) -> tuple[float, float]:
    """Dice and recall of the voxels above a threshold."""
    found = scores.astype(np.float32) > threshold
    hits = (found & annotated).sum()
    return 2 * hits / (found.sum() + annotated.sum()), hits / annotated.sum()


def test_against_a_search() -> None:
    made = cases(5)
    found = choose_thresholds(histograms(made), EDGES)
    tried = np.nextafter(EDGES, np.float32(-np.inf))
    dice, recall = np.array([[figures(*case, t) for t in tried] for case in made]).transpose(
        2, 0, 1
    )
    assert found.cases == 5
    assert found.dice == pytest.approx(dice.mean(0).max())
    assert np.mean([figures(*c, found.dice_threshold)[0] for c in made]) == pytest.approx(
        found.dice
    )
    for wanted in RECALLS:
        expected = tried[recall.mean(0) >= wanted - 1e-12].max()
        assert found.recall_thresholds[wanted] == pytest.approx(float(expected))
    left_out = []
    for case in range(5):
        others = np.delete(dice, case, axis=0).mean(0)
        place = np.flatnonzero(others >= others.max() - 1e-12)[-1]
        left_out.append(dice[case, place])
    assert found.left_out_dice == pytest.approx(np.mean(left_out))
    assert found.left_out_dice < found.dice


def test_cases_without_annotation_do_not_count() -> None:
    made = cases(2)
    healthy = (made[0][0], np.zeros(3000, dtype=bool))
    found = choose_thresholds(histograms([*made, healthy]), EDGES)
    assert found == choose_thresholds(histograms(made), EDGES)
    with pytest.raises(ScreenerError, match="no case has an annotated voxel"):
        choose_thresholds(histograms([healthy]), EDGES)


def test_recalls_below_all_held_out_scores_are_left_out() -> None:
    """An eighth of the annotation outside of the body, where the score is the lowest."""
    scores, annotated = cases(5)[4]
    lost = scores.copy()
    lost[: annotated.sum() // 8] = -9.0
    found = choose_thresholds(histograms([(lost, annotated)]), EDGES)
    assert list(found.recall_thresholds) == [0.5, 0.6, 0.7, 0.8]
    assert np.isfinite(list(found.recall_thresholds.values())).all()
    assert AnnotatedThresholds.from_dict(found.to_dict()) == found
    for recall, threshold in found.recall_thresholds.items():
        assert figures(lost, annotated, threshold)[1] >= recall


def test_annotation_that_nothing_finds_is_refused() -> None:
    scores, annotated = cases(5)[4]
    lost = np.where(annotated, -9.0, scores)
    with pytest.raises(ScreenerError, match="outside of the body"):
        choose_thresholds(histograms([(lost, annotated)]), EDGES)


def test_one_case_and_json() -> None:
    found = choose_thresholds(histograms(cases(1)), EDGES)
    assert found.left_out_dice is None
    assert AnnotatedThresholds.from_dict(found.to_dict()) == found
