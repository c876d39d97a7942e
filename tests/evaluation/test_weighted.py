"""Weighted AUROC against scikit-learn's on the voxels that the positions stand for."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from screener_nnu.evaluation.weighted import weighted_auroc


@pytest.mark.parametrize("levels", [3, 50, 10_000])
def test_equals_scikit_learn_on_single_voxels(levels: int) -> None:
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


def test_one_class_alone_is_undefined() -> None:
    assert np.isnan(weighted_auroc(np.arange(3.0), np.zeros(3), np.ones(3)))
    assert np.isnan(weighted_auroc(np.arange(3.0), np.ones(3), np.zeros(3)))
