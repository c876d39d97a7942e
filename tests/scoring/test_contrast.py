"""Scores against their surroundings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from screener_nnu.scoring.contrast import local_contrast


def test_it_is_the_difference_of_two_means_over_the_body() -> None:
    """SciPy's Gaussians, normalised by the body that they meet."""
    rng = np.random.default_rng(0)
    scores, body = rng.normal(size=(20, 22, 24)), rng.random((20, 22, 24)) > 0.3

    def mean(sigma: tuple[float, ...]) -> np.ndarray:
        parts = [np.where(body, scores, 0), body.astype(float)]
        total, near = (gaussian_filter(p, sigma, mode="nearest", truncate=3.0) for p in parts)
        return total / near

    fine, coarse = (1.0, 1.0, 1.0), (2.0, 3.0, 3.0)
    images = torch.from_numpy(scores), torch.from_numpy(body)
    for weight in (1.0, 0.6):
        expected = mean(fine) - weight * mean(coarse)
        found = local_contrast(*images, fine, coarse, weight)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_of_a_large_lesion_a_part_keeps_its_inside() -> None:
    scores = torch.zeros(1, 80, 80)
    scores[:, 10:70, 10:70] = 1
    body = torch.ones(1, 80, 80, dtype=torch.bool)
    whole, half = (local_contrast(scores, body, (1,) * 3, (6,) * 3, w)[0] for w in (1.0, 0.5))
    assert whole[40, 40] == pytest.approx(0, abs=1e-4) and half[40, 40] == pytest.approx(0.5)
    assert whole[11, 40] > 0.2 and half[40, 40] > half[0].max() + 0.3


def test_a_level_is_nothing_and_air_does_not_matter() -> None:
    body = torch.zeros(16, 16, 16, dtype=torch.bool)
    body[4:12, 4:12, 4:12] = True
    scores = torch.where(body, 7.0, torch.nan)
    found = local_contrast(scores, body, (1, 1, 1), (3, 3, 3))
    assert found[body].abs().max() < 1e-5 and torch.isfinite(found).all()


@pytest.mark.parametrize("shape", [(1, 40, 40), (24, 24, 24)])
def test_a_blob_in_noisy_tissue_stands_out(shape: tuple[int, int, int]) -> None:
    """Half of the image is noisier; there, raw scores are higher than those of a blob elsewhere."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=shape) + np.where(np.arange(shape[2]) < shape[2] // 2, 4.0, 0.0)
    blob = np.zeros(shape, dtype=bool)
    blob[:, 8:12, -9:-5] = True
    scores[blob] += 3
    body = torch.ones(shape, dtype=torch.bool)
    found = local_contrast(torch.from_numpy(scores), body, (1, 1, 1), (4, 4, 4)).numpy()
    raw = np.quantile(scores[~blob], 0.9) > scores[blob].mean()
    assert raw and found[blob].mean() > np.quantile(found[~blob], 0.97)
