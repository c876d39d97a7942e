"""Losses of interpolated Gaussian descriptors against their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.losses.igd import (
    Similarity,
    critic_loss,
    reconstruction_loss,
    reconstruction_map,
    smoothed_reconstruction,
)
from screener_nnu.losses.ms_ssim import ms_ssim, ms_ssim_map


def images(seed: int, size: tuple[int, int, int] = (1, 24, 28)) -> torch.Tensor:
    return torch.rand(3, 1, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(1, 24, 28), (12, 13, 14)])
@pytest.mark.parametrize("rho", [0.0, 0.15, 1.0])
def test_reconstruction_is_a_weighted_sum_for_each_image(
    size: tuple[int, int, int], rho: float
) -> None:
    x, y = images(0, size), images(1, size)
    similarity = Similarity.of(size, local=True)
    found = reconstruction_loss(x, y, rho, similarity)
    assert found.shape == (3,)
    for i, value in enumerate(found):
        absolute = np.abs(x[i].numpy() - y[i].numpy()).mean()
        alike = float(ms_ssim(x[i : i + 1], y[i : i + 1], *similarity))
        assert float(value) == pytest.approx(rho * absolute + (1 - rho) * (1 - alike), abs=1e-6)
    assert float(reconstruction_loss(x, x, rho, similarity).abs().max()) < 1e-5


def test_maps_are_higher_where_an_image_is_not_met() -> None:
    x = images(2)
    y = x.clone()
    y[:, :, :, 4:10, 5:11] = 0.5
    similarity = Similarity.of((1, 24, 28), local=True)
    found = reconstruction_map(x, y, similarity)
    assert found.shape == (3, 1, 24, 28)
    expected = 0.85 * (1 - ms_ssim_map(x, y, *similarity)) + 0.15 * (x - y).abs()[:, 0]
    torch.testing.assert_close(found, expected)
    assert float(found[..., 4:10, 5:11].mean()) > 5 * float(found[..., 16:, 18:].mean())


def test_the_critic_is_told_of_each_image_by_itself() -> None:
    mixed, mix, unmixed = (torch.rand(5, dtype=torch.float64) for _ in range(3))
    found = critic_loss(mixed, mix, unmixed)
    expected = [(m - a) ** 2 + u**2 for m, a, u in zip(mixed, mix, unmixed, strict=True)]
    assert found.shape == (5,)
    np.testing.assert_allclose(found.numpy(), np.array(expected), rtol=1e-12)
    with pytest.raises(ValueError, match="one shape"):
        critic_loss(mixed[:, None], mix, unmixed)
    x, y = images(3), images(4)
    torch.testing.assert_close(smoothed_reconstruction(x, y), y + 0.2 * (x - y))


def test_windows_of_models() -> None:
    assert Similarity.of((1, 256, 256), local=False).window == 11
    assert Similarity.of((40, 40, 40), local=False).window == 5
    assert Similarity.of((16, 16, 16), local=True).window == 3
    with pytest.raises(ValueError, match="no room for a window of 11"):
        Similarity.of((1, 8, 40), local=False)
