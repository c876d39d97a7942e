from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from screener_nnu.evaluation.case_level import case_auroc


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
