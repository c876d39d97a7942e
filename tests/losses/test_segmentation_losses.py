"""Losses of segmentation against NumPy, scikit-learn and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from screener_nnu.losses.segmentation import (
    focal_loss,
    supervised_cross_entropy,
    supervision_weights,
)

SIZE = (2, 1, 4, 6, 8)


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, masks and bodies."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(SIZE, generator=generator)
    masks = torch.rand(SIZE, generator=generator) < 0.3
    bodies = torch.rand(SIZE, generator=generator) < 0.7
    return logits, masks, bodies


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_weights_halve_and_sum_to_one(count: int) -> None:
    weights = np.array(supervision_weights(count))
    assert weights.sum() == pytest.approx(1)
    np.testing.assert_allclose(weights[1:], weights[:-1] / 2)


def test_focal_loss_without_focus_is_the_cross_entropy() -> None:
    logits, masks, bodies = drawn()
    found = float(focal_loss(logits, masks, bodies, 0.0))
    p = 1 / (1 + np.exp(-logits.double()[bodies].numpy()))
    assert found == pytest.approx(log_loss(masks[bodies].numpy(), p), rel=1e-5)


def test_focal_loss_is_that_of_numpy() -> None:
    logits, masks, bodies = drawn()
    p = 1 / (1 + np.exp(-logits.double().numpy()))
    true = np.where(masks.numpy(), p, 1 - p)
    expected = (-((1 - true) ** 2) * np.log(true))[bodies.numpy()].mean()
    assert float(focal_loss(logits, masks, bodies, 2.0)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_of_sure_voxels_is_finite(gamma: float) -> None:
    logits = torch.tensor([500.0, -500.0, 0.0, 60.0]).view(1, 1, 1, 1, 4).requires_grad_()
    masks = torch.tensor([True, True, False, True]).view(logits.shape)
    loss = focal_loss(logits, masks, torch.ones_like(masks), gamma)
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_soft_cross_entropy_is_least_at_the_logit_of_the_label() -> None:
    labels = torch.rand(SIZE, generator=torch.Generator().manual_seed(1)) * 0.9 + 0.05
    best = (labels / (1 - labels)).log().requires_grad_()
    bodies = torch.ones_like(labels, dtype=torch.bool)
    loss = supervised_cross_entropy([best], labels, bodies)
    loss.backward()
    assert best.grad is not None and best.grad.abs().max() < 1e-7
    y = labels.double().numpy()
    entropy = -(y * np.log(y) + (1 - y) * np.log(1 - y)).mean()
    assert loss.item() == pytest.approx(entropy, rel=1e-5)
    assert float(supervised_cross_entropy([best.detach() + 0.3], labels, bodies)) > loss.item()


def test_coarser_outputs_have_the_means_of_labels_and_bodies() -> None:
    logits, masks, bodies = drawn()
    coarse = torch.randn(2, 1, 2, 3, 4, generator=torch.Generator().manual_seed(2))
    found = float(supervised_cross_entropy([logits, coarse], masks.float(), bodies))

    def means(values: torch.Tensor) -> np.ndarray:
        return values.double().numpy().reshape(2, 1, 2, 2, 3, 2, 4, 2).mean((3, 5, 7))

    def entropy(output: torch.Tensor, y: np.ndarray, weights: np.ndarray) -> float:
        z = output.double().numpy()
        values = np.logaddexp(0, z) - y * z
        return float((values * weights).sum() / weights.sum())

    fine = entropy(logits, masks.numpy(), bodies.numpy())
    expected = 2 / 3 * fine + 1 / 3 * entropy(coarse, means(masks), means(bodies))
    assert found == pytest.approx(expected, rel=1e-5)
    outside = torch.where(bodies, logits, 1000.0)
    assert float(supervised_cross_entropy([outside], masks.float(), bodies)) == pytest.approx(fine)
