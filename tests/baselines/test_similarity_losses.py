"""Losses of structural similarity, against scikit-image and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from screener_nnu.baselines.base import build_method
from screener_nnu.errors import ScreenerError
from tests.baselines.made_images import half_a_body, smooth, weighted
from tests.baselines.made_plans import PICTURE, VOLUME, method_plan

BOTH = pytest.mark.parametrize("kind", [VOLUME, PICTURE])


@BOTH
@pytest.mark.parametrize("window", [3, 5])
def test_structural_similarity_is_that_of_scikit_image(kind: str, window: int) -> None:
    options = ("loss=ssim", f"window={window}", "outside=0.0", "rho=0.3")
    settings = [f"baseline.options.{option}" for option in options]
    method: Any = build_method(method_plan(kind, "autoencoder", settings))
    images = smooth(method)
    decoded = (images + 0.1 * torch.randn_like(images)).clamp(-1, 1)
    # At the border scikit-image mirrors, and we repeat what lies there.
    half = window // 2
    inner = tuple(slice(half, -half) if n > 1 else slice(None) for n in method.size)
    bodies = torch.zeros_like(images, dtype=torch.bool)
    bodies[(..., *inner)] = half_a_body(images)[(..., *inner)]
    found = method.differences(images, decoded, bodies)
    x, y = ((t.numpy().astype(np.float64) + 1) / 2 for t in (images, decoded))
    sigma = 1.5 * window / 11
    unlike = []
    for a, b in zip(x, y, strict=True):
        _, similar = structural_similarity(
            a.squeeze(),
            b.squeeze(),
            data_range=1,
            gaussian_weights=True,
            sigma=sigma,
            truncate=(window // 2 + 0.01) / sigma,
            use_sample_covariance=False,
            full=True,
            win_size=window,
        )
        unlike.append(1 - similar.reshape(a.shape))
    weights = bodies.numpy().astype(np.float64)
    expected = {
        "ssim": 0.7 * weighted(np.stack(unlike), weights),
        "l1": 0.3 * weighted(np.abs(x - y), weights),
    }
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, rel=1e-4)


def test_structural_similarity_at_several_scales_is_a_mean_of_maps() -> None:
    settings = ["baseline.options.loss=msssim", "baseline.options.window=3"]
    method: Any = build_method(method_plan(VOLUME, "autoencoder", settings))
    images = smooth(method, 1)
    decoded = (images + 0.1 * torch.randn_like(images)).clamp(-1, 1)
    bodies = half_a_body(images)
    x, y = ((t.numpy().astype(np.float64)[0, 0] + 1) / 2 for t in (images, decoded))
    weights = np.array([0.0516, 0.3295, 0.3463])
    assert method.scales == pytest.approx(weights / weights.sum())
    total = np.zeros(x.shape)
    for weight in method.scales:
        blurred = {}
        for name, value in {"x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}.items():
            sigma = 1.5 * 3 / 11
            blurred[name] = ndimage.gaussian_filter(value, sigma, mode="nearest", radius=1)
        variances = blurred["xx"] - blurred["x"] ** 2 + blurred["yy"] - blurred["y"] ** 2
        shared = blurred["xy"] - blurred["x"] * blurred["y"]
        similar = (2 * shared + 0.03**2) / (variances + 0.03**2)
        means = blurred["x"] ** 2 + blurred["y"] ** 2 + 0.01**2
        similar = similar * (2 * blurred["x"] * blurred["y"] + 0.01**2) / means
        fine = torch.from_numpy(similar)[None, None]
        total += weight * torch.nn.functional.interpolate(
            fine, method.size, mode="trilinear"
        ).numpy().reshape(total.shape)
        x, y = (v.reshape([n for m in v.shape for n in (m // 2, 2)]) for v in (x, y))
        x, y = x.mean((1, 3, 5)), y.mean((1, 3, 5))
    found = method.differences(images, decoded, bodies)
    expected = 0.85 * weighted(1 - total, np.where(bodies.numpy()[0, 0], 1.0, 0.1))
    assert float(found["msssim"]) == pytest.approx(expected, rel=1e-4)
    same = method.differences(images, images, bodies)
    assert float(same["msssim"]) == pytest.approx(0, abs=1e-6)


def test_a_window_that_does_not_fit_is_refused() -> None:
    settings = ["baseline.options.loss=ssim", "baseline.options.window=17"]
    with pytest.raises(ScreenerError, match=r"baseline\.options\.window is too large"):
        build_method(method_plan(VOLUME, "autoencoder", settings))
