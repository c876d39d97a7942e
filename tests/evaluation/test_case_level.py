from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from screener_nnu.evaluation.case_level import case_auroc, case_score


@pytest.mark.parametrize("ties", [False, True])
def test_case_auroc_equals_sklearn_also_for_resampled_cases(ties: bool) -> None:
    rng = np.random.default_rng(0)
    ill = rng.random(40) < 0.4
    scores = rng.normal(size=40) + ill
    scores = np.round(scores) if ties else scores
    weights = rng.multinomial(40, np.full(40, 1 / 40), size=5).astype(float)
    areas = case_auroc(scores.tolist(), ill.tolist(), weights)
    for area, row in zip(areas, weights.astype(int), strict=True):
        expected = roc_auc_score(np.repeat(ill, row), np.repeat(scores, row))
        assert area == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ill", [True, False])
def test_one_kind_of_case_alone_is_undefined(ill: bool) -> None:
    assert np.isnan(case_auroc([1.0, 2.0], [ill, ill], np.ones(2)))


@pytest.mark.parametrize("kind", ["noise", "ties", "rising", "falling", "spike"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.8, 1.1), (30.0, 30.0, 30.0)])
def test_score_is_the_mean_of_the_highest_millilitre(
    kind: str, spacing: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=200_001).astype(np.float32)
    if kind == "ties":
        scores = np.round(scores)
    elif kind in ("rising", "falling"):
        scores = np.sort(scores)[:: 1 if kind == "rising" else -1]
    elif kind == "spike":
        scores[::64] = 50
    top = max(round(1000 / np.prod(spacing)), 1)
    expected = np.sort(scores)[-top:].mean(dtype=np.float64)
    assert case_score(scores, spacing) == pytest.approx(expected, rel=1e-12)


def test_a_body_below_a_millilitre_is_averaged_whole() -> None:
    assert case_score(np.array([1, 2, 6], dtype=np.float32), (1, 1, 1)) == 3
