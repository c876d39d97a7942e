"""Colour jitter as the plan sets it: how often each step happens, in which order, in mm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from screener_nnu.plans import JitterSettings
from screener_nnu.sampling.image_draws import ImageDraws
from screener_nnu.sampling.jitter import colour_jitter

torch.set_num_threads(1)
OFF = JitterSettings(1.0, 0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0), (1.0, 1.0))


def run(
    images: torch.Tensor, settings: JitterSettings, spacing: tuple[float, float] = (1.5, 1.5)
) -> torch.Tensor:
    places = torch.tensor([spacing]).expand(len(images), 2)
    return colour_jitter(images, places, settings, torch.Generator().manual_seed(0))


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Tensor]]:
    """The numbers of each step as they are drawn: noise, brightness, contrast, gamma."""
    drawn: list[torch.Tensor] = []
    gated = ImageDraws.gated

    def remember(self: ImageDraws, *how: Any, neutral: float) -> torch.Tensor:
        values = gated(self, *how, neutral=neutral)
        drawn.append(values.flatten())
        return values

    with monkeypatch.context() as patch:
        patch.setattr(ImageDraws, "gated", remember)
        yield drawn


@pytest.mark.parametrize("spacing", [(1.5, 1.5), (1.0, 2.0), (3.9, 2.6)])
def test_impulse_response_has_the_sigma_in_mm_on_any_spacing(spacing: tuple[float, float]) -> None:
    """A bright line becomes a Gaussian; its width in voxels times the spacing is sigma in mm."""
    limit, count = 6.0, 60
    images = torch.zeros(count, 1, 1, 61, 61)
    images[..., 30, 30] = 1
    result = run(images, replace(OFF, blur_sigma_mm=limit), spacing)[:, 0, 0].double()
    offset = torch.arange(61) - 30.0
    widths = []
    for axis in (2, 1):  # sums over x give the profile in y, and the other way round
        profile = result.sum(axis)
        profile = profile / profile.sum(1, keepdim=True)
        widths.append((profile @ offset.double() ** 2).sqrt())
    in_mm = torch.stack(widths, 1) * torch.tensor(spacing)
    # Below 0.8 voxels a sampled Gaussian is narrower than its sigma.
    wide = (torch.stack(widths, 1) > 0.8).all(1)
    assert int(wide.sum()) > 8
    torch.testing.assert_close(in_mm[wide, 0], in_mm[wide, 1], rtol=0.02, atol=0)
    assert in_mm.max() < 1.01 * limit
    # Half of the crops are sharpened (by 0 here), the sigmas of the others spread up to the limit.
    assert in_mm.max() > 0.8 * limit


def test_half_of_the_changed_crops_are_blurred_and_half_sharpened() -> None:
    count, probability = 1500, 0.8
    images = torch.zeros(count, 1, 1, 9, 9)
    images[..., 4, 4] = 0.5
    settings = replace(OFF, probability=probability, blur_sigma_mm=3.0, sharpen=1.0)
    middle = run(images, settings)[:, 0, 0, 4, 4]
    blurred, sharpened = middle < 0.499, middle > 0.501
    # A sigma below 0.3 voxels (of 2) or an amount near 0 changes next to nothing.
    unchanged = count - int(blurred.sum()) - int(sharpened.sum())
    assert 0.2 * count < unchanged < 0.4 * count
    ratio = int(blurred.sum()), int(blurred.sum() + sharpened.sum())
    assert stats.binomtest(*ratio, 0.5).pvalue > 1e-3


def test_every_step_has_its_own_probability_of_four_fifths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the defaults; a step is off where its number is the neutral one."""
    count = 4000
    with watched(monkeypatch) as drawn:
        run(torch.rand(count, 1, 1, 2, 2), JitterSettings())
    names = ("noise", "brightness", "contrast", "gamma")
    taken = np.stack([(d != n).numpy() for d, n in zip(drawn, (0, 1, 1, 1), strict=True)])
    for name, row in zip(names, taken, strict=True):
        assert stats.binomtest(int(row.sum()), count, 0.8).pvalue > 1e-3, name
    assert np.abs(np.corrcoef(taken) - np.eye(4)).max() < 0.06
    ranges = ((0.0, 0.1), (0.8, 1.2), (0.8, 1.2), (0.8, 1.25))
    for name, values, on, (low, high) in zip(names, drawn, taken, ranges, strict=True):
        uniform = stats.uniform(low, high - low)
        assert stats.kstest(values.numpy()[on], uniform.cdf).pvalue > 1e-3, name


def test_blur_or_sharpening_too_happens_four_times_in_five() -> None:
    """Every sigma and amount would show here, so what is unchanged was left out."""
    count = 1500
    images = torch.rand(count, 1, 1, 4, 4)
    changed = run(images, replace(OFF, probability=0.8, blur_sigma_mm=60.0, sharpen=60.0)) - images
    taken = int((changed.abs().amax(dim=(1, 2, 3, 4)) > 1e-6).sum())
    assert stats.binomtest(taken, count, 0.8).pvalue > 1e-3


def test_noise_comes_after_the_blur_and_before_brightness() -> None:
    """Noise is not smoothed, and it grows with the brightness that follows."""
    images = torch.full((300, 1, 4, 12, 12), 0.4)
    plain = replace(OFF, noise=0.05)
    noise = run(images, plain) - 0.4
    smooth = run(images, replace(plain, blur_sigma_mm=9.0)) - 0.4
    torch.testing.assert_close(smooth, noise, rtol=0, atol=1e-4)  # a flat image is not blurred
    brighter = run(images, replace(plain, brightness=(1.5, 1.5)))
    torch.testing.assert_close(brighter, (1.5 * (0.4 + noise)).clamp(0, 1), rtol=0, atol=1e-5)


def test_intensities_are_clipped_after_brightness_and_contrast_but_not_after_noise() -> None:
    """What noise pushes above 1 comes back where brightness lowers it; then nothing is beyond."""
    images = torch.full((300, 1, 4, 8, 8), 0.95)
    noisy = replace(OFF, noise=0.2)
    dark = run(images, replace(noisy, brightness=(0.5, 0.5)))
    assert float(dark.max()) > 0.5  # 1.0 * 0.5 would be the highest value of clipped noise
    assert float(run(images, noisy).max()) == 1.0
    # Clipped at brightness, a flat crop has no contrast left that could be lowered again.
    bright = replace(OFF, brightness=(2.0, 2.0), contrast=(0.5, 0.5))
    assert float((run(images, bright) - 1).abs().max()) < 1e-6
    steep = torch.rand(50, 1, 4, 8, 8)
    pushed = run(steep, replace(OFF, contrast=(5.0, 5.0), gamma=(2.0, 2.0)))
    mean = steep.mean(dim=(1, 2, 3, 4), keepdim=True)
    expected = ((steep - mean) * 5 + mean).clamp(0, 1) ** 2
    torch.testing.assert_close(pushed, expected, rtol=0, atol=1e-5)
