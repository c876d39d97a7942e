"""The squared error of a student against explicit sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.losses.distillation import distillation_loss
from screener_nnu.plans import DistillationSettings, OptimiserSettings


def settings_of(tail: float, descriptors: float) -> DistillationSettings:
    return DistillationSettings(
        OptimiserSettings(1, 1, 0), (4, 4, 4), tail_weight=tail, descriptor_weight=descriptors
    )


def expected_terms(
    outputs: np.ndarray, targets: np.ndarray, tail: float
) -> tuple[float, float | None]:
    weights, errors = [], []
    for found, wanted in zip(outputs[:, 0].ravel(), targets[:, 0].ravel(), strict=True):
        weights.append(1 + tail * max(wanted, 0))
        errors.append((found - wanted) ** 2)
    score = float(np.average(errors, weights=weights))
    if outputs.shape[1] == 1:
        return score, None
    return score, float(((outputs[:, 1:] - targets[:, 1:]) ** 2).mean())


CASES = [(0.0, 0.0), (2.0, 0.0), (0.0, 0.3), (1.5, 0.3)]


@pytest.mark.parametrize("tail, descriptors", CASES)
def test_one_output(tail: float, descriptors: float) -> None:
    rng = np.random.default_rng(3)
    outputs, targets = rng.normal(size=(2, 2, 5 if descriptors else 1, 4, 4, 4))
    settings = settings_of(tail, descriptors)
    loss, terms = distillation_loss(torch.from_numpy(outputs), torch.from_numpy(targets), settings)
    score, rest = expected_terms(outputs, targets, tail)
    if rest is None:
        assert not terms and float(loss) == pytest.approx(score)
    else:
        assert float(terms["score"]) == pytest.approx(score)
        assert float(terms["descriptors"]) == pytest.approx(rest)
        assert float(loss) == pytest.approx(score + descriptors * rest)


@pytest.mark.parametrize("tail, descriptors", CASES)
def test_outputs_of_three_resolutions(tail: float, descriptors: float) -> None:
    """Coarser ones against block means, along z of another size than in plane."""
    rng = np.random.default_rng(4)
    channels = 3 if descriptors else 1
    targets = rng.normal(size=(2, channels, 4, 8, 8))
    sizes = [(4, 8, 8), (4, 4, 4), (2, 2, 2)]
    outputs = [rng.normal(size=(2, channels, *size)) for size in sizes]
    loss, terms = distillation_loss(
        [torch.from_numpy(o) for o in outputs],
        torch.from_numpy(targets),
        settings_of(tail, descriptors),
    )
    expected = 0.0
    for share, size, output in zip((4 / 7, 2 / 7, 1 / 7), sizes, outputs, strict=True):
        blocks = [k for n, whole in zip(size, (4, 8, 8), strict=True) for k in (n, whole // n)]
        means = targets.reshape(2, channels, *blocks).mean(axis=(3, 5, 7))
        score, rest = expected_terms(output, means, tail)
        expected += share * (score + descriptors * (rest or 0.0))
    assert float(loss) == pytest.approx(expected)
    score, rest = expected_terms(outputs[0], targets, tail)
    assert rest is None or float(terms["score"]) == pytest.approx(score)
