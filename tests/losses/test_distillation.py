"""The squared error of a student against explicit sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.losses.distillation import distillation_loss
from screener_nnu.plans import DistillationSettings, OptimiserSettings


def settings_of(tail: float, descriptors: float, air: float) -> DistillationSettings:
    return DistillationSettings(
        OptimiserSettings(1, 1, 0),
        (4, 4, 4),
        tail_weight=tail,
        descriptor_weight=descriptors,
        air_weight=air,
    )


def expected_terms(
    outputs: np.ndarray, targets: np.ndarray, counts: np.ndarray, tail: float
) -> tuple[float, float | None]:
    weights, errors = [], []
    voxels = (outputs[:, 0].ravel(), targets[:, 0].ravel(), counts.ravel())
    for found, wanted, count in zip(*voxels, strict=True):
        weights.append(count * (1 + tail * max(wanted, 0)))
        errors.append((found - wanted) ** 2)
    score = float(np.average(errors, weights=weights))
    if outputs.shape[1] == 1:
        return score, None
    rest = ((outputs[:, 1:] - targets[:, 1:]) ** 2).mean(axis=1)
    return score, float(np.average(rest, weights=counts[:, 0]))


CASES = [(0.0, 0.0, 1.0), (2.0, 0.0, 1.0), (0.0, 0.3, 1.0), (1.5, 0.3, 1.0), (1.5, 0.3, 0.1)]


@pytest.mark.parametrize("tail, descriptors, air", CASES)
def test_one_output(tail: float, descriptors: float, air: float) -> None:
    rng = np.random.default_rng(3)
    outputs, targets = rng.normal(size=(2, 2, 5 if descriptors else 1, 4, 4, 4))
    bodies = rng.random((2, 1, 4, 4, 4)) < 0.4
    loss, terms = distillation_loss(
        torch.from_numpy(outputs),
        torch.from_numpy(targets),
        torch.from_numpy(bodies),
        settings_of(tail, descriptors, air),
    )
    score, rest = expected_terms(outputs, targets, np.where(bodies, 1, air), tail)
    if rest is None:
        assert not terms and float(loss) == pytest.approx(score)
    else:
        assert float(terms["score"]) == pytest.approx(score)
        assert float(terms["descriptors"]) == pytest.approx(rest)
        assert float(loss) == pytest.approx(score + descriptors * rest)


@pytest.mark.parametrize("tail, descriptors, air", CASES)
def test_outputs_of_three_resolutions(tail: float, descriptors: float, air: float) -> None:
    """Coarser ones against block means, along z of another size than in plane."""
    rng = np.random.default_rng(4)
    channels = 3 if descriptors else 1
    targets = rng.normal(size=(2, channels, 4, 8, 8))
    bodies = rng.random((2, 1, 4, 8, 8)) < 0.4
    sizes = [(4, 8, 8), (4, 4, 4), (2, 2, 2)]
    outputs = [rng.normal(size=(2, channels, *size)) for size in sizes]
    loss, terms = distillation_loss(
        [torch.from_numpy(o) for o in outputs],
        torch.from_numpy(targets),
        torch.from_numpy(bodies),
        settings_of(tail, descriptors, air),
    )
    counts = np.where(bodies, 1, air)
    expected = 0.0
    for share, size, output in zip((4 / 7, 2 / 7, 1 / 7), sizes, outputs, strict=True):
        blocks = [k for n, whole in zip(size, (4, 8, 8), strict=True) for k in (n, whole // n)]
        means = targets.reshape(2, channels, *blocks).mean(axis=(3, 5, 7))
        shares = counts.reshape(2, 1, *blocks).mean(axis=(3, 5, 7))
        score, rest = expected_terms(output, means, shares, tail)
        expected += share * (score + descriptors * (rest or 0.0))
    assert float(loss) == pytest.approx(expected)
    score, rest = expected_terms(outputs[0], targets, counts, tail)
    assert rest is None or float(terms["score"]) == pytest.approx(score)


def test_air_that_weighs_nothing_does_not_count() -> None:
    outputs, targets = torch.randn(2, 1, 1, 4, 4, 4)
    nothing = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    loss, _ = distillation_loss(outputs, targets, nothing, settings_of(1.0, 0.0, 0.0))
    assert float(loss) == 0
