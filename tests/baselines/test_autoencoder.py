"""The bottleneck is as narrow as stated, and losses are means over body and rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.baselines.base import build_method
from screener_nnu.baselines.bottleneck import BottleneckNetwork
from screener_nnu.crop_methods import body_mean
from tests.baselines.made_plans import VOLUME, method_plan


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((40, 40, 40), (5, 5, 5)),
        ((64, 96, 96), (4, 6, 6)),
        ((16, 80, 56), (4, 5, 4)),
        ((1, 128, 96), (1, 4, 6)),
    ],
)
def test_the_narrow_grid(size: tuple[int, int, int], grid: tuple[int, int, int]) -> None:
    network = BottleneckNetwork(method_plan(VOLUME, "autoencoder"), size, latent=3)
    assert network.grid == grid
    with torch.no_grad():
        assert network.encoder(torch.zeros(1, 1, *size)).shape == (1, 3, *grid)
        assert network(torch.zeros(1, 1, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_loss_is_that_of_numpy(loss: str) -> None:
    plan = method_plan(VOLUME, "autoencoder", [f"baseline.options.loss={loss}"])
    method = build_method(plan).eval()
    images = torch.rand(2, 1, *method.size)
    bodies = torch.rand(2, 1, *method.size) < 0.5
    with torch.no_grad():
        found = method(images, bodies, torch.Generator(), 0, 1)[loss]
        decoded = method.network(images).numpy()
        score = method.score(images).numpy()
    difference = np.abs(images.numpy() - decoded)
    np.testing.assert_allclose(score, difference[:, 0], atol=1e-6)
    weights = np.where(bodies.numpy(), 1.0, 0.1)
    values = difference if loss == "l1" else difference**2
    assert float(found) == pytest.approx((values * weights).sum() / weights.sum(), rel=1e-5)


def test_the_mean_over_no_body_is_no_division_by_zero() -> None:
    nothing = torch.zeros(1, 1, 2, 2, 2, dtype=torch.bool)
    assert float(body_mean(torch.ones(1, 1, 2, 2, 2), nothing)) == 0
