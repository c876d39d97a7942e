"""Images that are smaller than a method's: what fills them up, and what becomes of the scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from screener_nnu.baselines.base import BaselineMethod
from screener_nnu.plans import Plan
from screener_nnu.scoring.baseline import BaselineDetector
from tests.baselines.made_plans import VOLUME, method_plan


class Shown(BaselineMethod):
    """Keeps what it is shown, and finds all of the filling odd."""

    smoothing = 1.0

    def forward(self, *_: Any) -> dict[str, torch.Tensor]:
        return {}

    def score(self, images: torch.Tensor) -> torch.Tensor:
        self.shown = images
        scores = images[:, 0].clone()
        scores[..., 10:] = 100
        return scores


def plan_of(modality: str, image: str) -> Plan:
    plan = method_plan(VOLUME, "autoencoder", [f'baseline.image="{image}"'])
    grid = replace(plan.settings.preprocessing, modality=modality)
    return plan.with_settings(replace(plan.settings, preprocessing=grid))


@pytest.mark.parametrize(
    ("modality", "image", "filling"),
    [("ct", "hu", -1.0), ("mr", "hu", 0.0), ("mr", "equalised", -1.0)],
)
def test_images_are_filled_up_as_in_training(modality: str, image: str, filling: float) -> None:
    plan = plan_of(modality, image)
    method = Shown(plan, (16, 16, 16))
    detector = BaselineDetector(method, plan)
    low, high = detector.window
    values = low + (high - low) * torch.rand(1, 1, 12, 16, 10)
    found = detector.score(values)
    assert method.shown.shape == (1, 1, 16, 16, 16)
    assert (method.shown[:, :, 12:] == filling).all()
    assert (method.shown[..., 10:] == filling).all()
    # Scores of the filling do not reach into the image.
    inside = method.shown[0, 0, :12, :, :10].numpy()
    expected = gaussian_filter(inside, 1.0, mode="nearest", truncate=3)
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-5)
