"""Synthetic anomalies in one image of each scan: the image shows them, and AUROC is what it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.trainers.image_check import ImageCheck

CPU = torch.device("cpu")


@pytest.fixture
def check(world: Any) -> ImageCheck:
    made = ImageCheck(CaseFolder(world.cases), world.plan(), (12, 16, 16))
    made.prepare()
    return made


def test_every_image_shows_some_anomaly_in_the_body(check: ImageCheck) -> None:
    assert check.names and check.kinds
    for case in check.names:
        for kind in check.kinds:
            part = check._parts[case, kind]
            assert part.positive.any() and part.negative.any()
            assert not (part.positive & part.negative).any()
            assert part.image.shape[1:] == part.positive.shape
            assert all(n <= m for n, m in zip(part.positive.shape, (12, 16, 16), strict=True))


def test_figures_are_those_of_scikit_learn(check: ImageCheck) -> None:
    def score(image: torch.Tensor) -> torch.Tensor:
        return image[:, 0]

    found = check.auroc(score, CPU)
    for kind in check.kinds:
        parts = [check._parts[case, kind] for case in check.names]
        counted = [p.positive | p.negative for p in parts]
        labels = np.concatenate([p.positive[c] for p, c in zip(parts, counted, strict=True)])
        scores = [p.image[0].float().numpy()[c] for p, c in zip(parts, counted, strict=True)]
        assert found[kind] == pytest.approx(roc_auc_score(labels, np.concatenate(scores)))
    assert found["mean"] == pytest.approx(np.mean([found[kind] for kind in check.kinds]))
