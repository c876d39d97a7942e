"""Colour jitter, one step at a time, against NumPy and SciPy, and its statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from screener_nnu.plans import JitterSettings
from screener_nnu.sampling.jitter import blur_in_plane, colour_jitter

torch.set_num_threads(1)
# Every step at its neutral value; each test opens the range of one of them.
NEUTRAL = JitterSettings(
    probability=1.0,
    blur_sigma_mm=0.0,
    sharpen=0.0,
    noise=0.0,
    brightness=(1.0, 1.0),
    contrast=(1.0, 1.0),
    gamma=(1.0, 1.0),
)
SHAPE = (5, 14, 12)


def crops(count: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(count, 1, *SHAPE, generator=generator)


def jitter(images: torch.Tensor, settings: JitterSettings, seed: int = 0) -> torch.Tensor:
    spacing = torch.tensor([[1.5, 2.0]]).expand(len(images), 2)
    return colour_jitter(images, spacing, settings, torch.Generator().manual_seed(seed))


def per_crop(function: object, *tensors: torch.Tensor) -> np.ndarray:
    return np.array([function(*(t[i].numpy() for t in tensors)) for i in range(len(tensors[0]))])  # type: ignore[operator]


def assert_uniform(values: np.ndarray, low: float, high: float) -> None:
    assert values.min() >= low - 1e-3 and values.max() <= high + 1e-3
    width = high - low
    sigma = width / np.sqrt(12 * len(values))
    assert abs(values.mean() - (low + high) / 2) < 5 * sigma
    assert abs(values.std() - width / np.sqrt(12)) < 0.1 * width


def test_neutral_ranges_change_nothing() -> None:
    images = crops(6)
    torch.testing.assert_close(jitter(images, NEUTRAL), images, rtol=1e-5, atol=1e-6)


def test_probability_zero_changes_nothing() -> None:
    images = crops(6)
    torch.testing.assert_close(jitter(images, JitterSettings(probability=0.0)), images)


@pytest.mark.parametrize("sigma", [(0.3, 0.8), (1.0, 0.5), (1.4, 1.4)])
def test_blur_equals_scipy_with_nearest_border(sigma: tuple[float, float]) -> None:
    images = crops(2)
    both = torch.tensor([sigma, (0.7, 0.9)])
    result = blur_in_plane(images, both, max_sigma=1.5)
    for image, (y, x), blurred in zip(images, both.tolist(), result, strict=True):
        radius = int(np.ceil(4 * 1.5))
        expected = ndimage.gaussian_filter(
            image[0].numpy().astype(float), (0, y, x), mode="nearest", radius=(0, radius, radius)
        )
        np.testing.assert_allclose(blurred[0].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("colours", [1, 3])
def test_blur_of_a_plane_equals_scipy_with_nearest_border(colours: int) -> None:
    """A picture has one slice."""
    images = torch.rand(2, colours, 1, 20, 15, generator=torch.Generator().manual_seed(2))
    both = torch.tensor([(0.8, 1.3), (1.1, 0.4)])
    result = blur_in_plane(images, both, max_sigma=1.5)
    assert result.shape == images.shape
    for image, sigmas, blurred in zip(images, both.tolist(), result, strict=True):
        for before, after in zip(image[:, 0].numpy(), blurred[:, 0].numpy(), strict=True):
            expected = ndimage.gaussian_filter(
                before.astype(float), sigmas, mode="nearest", radius=(6, 6)
            )
            np.testing.assert_allclose(after, expected, atol=2e-6)


def test_a_known_least_spacing_changes_next_to_nothing() -> None:
    """It sets the length of the kernel, whose end weighs nothing."""
    images, settings = crops(6), replace(NEUTRAL, blur_sigma_mm=1.5, sharpen=1.0)
    spacing = torch.tensor([[1.5, 2.0]]).expand(6, 2)
    measured, known = (
        colour_jitter(images, spacing, settings, torch.Generator().manual_seed(0), least)
        for least in (None, 1.0)
    )
    torch.testing.assert_close(measured, known, atol=2e-3, rtol=0)
    exact = colour_jitter(images, spacing, settings, torch.Generator().manual_seed(0), 1.5)
    assert torch.equal(measured, exact)


def test_blur_of_sigma_zero_is_the_image() -> None:
    images = crops(2)
    torch.testing.assert_close(blur_in_plane(images, torch.zeros(2, 2), 1.0), images)


def fitted_sigma_mm(image: np.ndarray, blurred: np.ndarray) -> float:
    """The sigma (mm) whose explicit blur comes nearest, for spacing 1.5 x 2.0 mm."""
    candidates = np.linspace(0, 1.5, 151)
    errors = [
        np.abs(
            ndimage.gaussian_filter(image[0].astype(float), (0, s / 1.5, s / 2.0), mode="nearest")
            - blurred[0]
        ).max()
        for s in candidates
    ]
    assert min(errors) < 0.02
    return float(candidates[int(np.argmin(errors))])


def test_half_of_the_crops_are_blurred_with_a_sigma_in_mm() -> None:
    """Without sharpening (amount 0) the other half stays as it is."""
    images = crops(160)
    result = jitter(images, replace(NEUTRAL, blur_sigma_mm=1.5))
    changed = (result - images).abs().amax(dim=(1, 2, 3, 4)) > 1e-5
    sigmas = per_crop(fitted_sigma_mm, images[changed], result[changed])
    # Sigmas below 0.3 voxels leave the image as it is: about a quarter of those blurred.
    assert 0.25 < float(changed.float().mean()) < 0.55
    assert sigmas.max() > 1.3 and sigmas.max() <= 1.5
    assert np.ptp(sigmas) > 0.9


def test_the_other_half_is_an_unsharp_mask() -> None:
    """x + a (x - blur(x)) with a in (0, 2): along the difference to a blurred image."""
    images = crops(160, low=0.45, high=0.55)  # no clipping
    result = jitter(images, replace(NEUTRAL, blur_sigma_mm=1.5, sharpen=2.0))
    contrast = (result.std(dim=(1, 2, 3, 4)) / images.std(dim=(1, 2, 3, 4))).numpy()
    blurred, sharpened = (contrast < 0.995).mean(), (contrast > 1.005).mean()
    assert 0.25 < blurred < 0.6 and 0.25 < sharpened < 0.6
    for index in np.flatnonzero(contrast > 1.2)[:10]:
        image, sharp = images[index, 0].numpy().astype(float), result[index, 0].numpy()
        errors = []
        for sigma in np.linspace(0.3, 1.5, 121):
            soft = ndimage.gaussian_filter(image, (0, sigma / 1.5, sigma / 2.0), mode="nearest")
            edge = (image - soft).ravel()
            amount = float(edge @ (sharp - image).ravel() / (edge @ edge))
            errors.append((np.abs(image + amount * (image - soft) - sharp).max(), amount))
        error, amount = min(errors)
        assert error < 2e-3
        assert 0 < amount < 2.05


def test_noise_is_white_with_a_uniform_sigma() -> None:
    images = torch.full((800, 1, *SHAPE), 0.5)
    noise = (jitter(images, replace(NEUTRAL, noise=0.1)) - images)[:, 0]
    sigma = noise.std(dim=(1, 2, 3)).numpy()
    assert_uniform(sigma, 0.0, 0.107)  # the estimate itself spreads by 2.4 %
    scaled = noise[sigma > 0.02] / torch.from_numpy(sigma[sigma > 0.02]).view(-1, 1, 1, 1)
    assert abs(float(scaled.mean())) < 0.01
    assert abs(float((scaled**4).mean()) - 3) < 0.1
    for axis in (1, 2, 3):
        ahead, behind = scaled.narrow(axis, 1, 4), scaled.narrow(axis, 0, 4)
        assert abs(float((ahead * behind).mean())) < 0.02


def test_brightness_is_one_factor_a_crop() -> None:
    images = crops(800, low=0.1, high=0.8)
    ratio = jitter(images, replace(NEUTRAL, brightness=(0.8, 1.2))) / images
    factor = ratio.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(ratio, factor.view(-1, 1, 1, 1, 1).expand_as(ratio))
    assert_uniform(factor.numpy(), 0.8, 1.2)


def test_contrast_turns_about_the_mean_of_the_crop() -> None:
    images = crops(800, low=0.2, high=0.8)
    mean = images.mean(dim=(1, 2, 3, 4), keepdim=True)
    result = jitter(images, replace(NEUTRAL, contrast=(0.8, 1.2)))
    factor = (result - mean).std(dim=(1, 2, 3, 4)) / images.std(dim=(1, 2, 3, 4))
    expected = (images - mean) * factor.view(-1, 1, 1, 1, 1) + mean
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    assert_uniform(factor.numpy(), 0.8, 1.2)


def test_gamma_is_one_power_a_crop() -> None:
    images = crops(800, low=0.05, high=0.9)
    power = jitter(images, replace(NEUTRAL, gamma=(0.8, 1.25))).log() / images.log()
    gamma = power.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(power, gamma.view(-1, 1, 1, 1, 1).expand_as(power))
    assert_uniform(gamma.numpy(), 0.8, 1.25)


@pytest.mark.parametrize(
    "step",
    [
        {"noise": 0.1},
        {"brightness": (0.7, 0.9)},
        {"contrast": (0.7, 0.9)},
        {"gamma": (1.3, 1.6)},
        {"blur_sigma_mm": 20.0, "sharpen": 40.0},
    ],
)
def test_each_step_happens_with_its_own_probability(step: dict) -> None:
    count, probability = 600, 0.8
    settings = replace(NEUTRAL, probability=probability, **step)
    images = crops(count, low=0.3, high=0.7)
    if "blur_sigma_mm" in step:
        images = images[..., :1, :4, :4].contiguous()
    changed = (jitter(images, settings) - images).abs().amax(dim=(1, 2, 3, 4)) > 1e-4
    share = float(changed.float().mean())
    assert abs(share - probability) < 4.5 * np.sqrt(probability * (1 - probability) / count)


def test_steps_are_drawn_independently() -> None:
    """Which crops become darker says nothing about which ones lose contrast."""
    images = crops(2000, low=0.3, high=0.7)
    settings = replace(NEUTRAL, probability=0.5, brightness=(0.8, 0.8), contrast=(0.5, 0.5))
    result = jitter(images, settings)
    darker = (result.mean(dim=(1, 2, 3, 4)) / images.mean(dim=(1, 2, 3, 4)) < 0.9).float()
    relative = result.std(dim=(1, 2, 3, 4)) / result.mean(dim=(1, 2, 3, 4))
    flatter = (relative / (images.std() / images.mean()) < 0.75).float()
    assert abs(float(np.corrcoef(darker, flatter)[0, 1])) < 0.08
    assert 0.45 < float(darker.mean()) < 0.55 and 0.45 < float(flatter.mean()) < 0.55


def test_order_of_brightness_contrast_and_gamma_with_their_clips() -> None:
    """Bright, clipped, flattened about the mean of *that*, clipped, then raised."""
    images = crops(3, low=0.0, high=1.0)
    settings = replace(NEUTRAL, brightness=(1.5, 1.5), contrast=(2.0, 2.0), gamma=(0.7, 0.7))
    for image, result in zip(images.numpy(), jitter(images, settings).numpy(), strict=True):
        bright = np.clip(image * 1.5, 0, 1)
        contrast = np.clip((bright - bright.mean()) * 2 + bright.mean(), 0, 1)
        np.testing.assert_allclose(result, contrast**0.7, atol=1e-5)


def test_result_stays_in_the_unit_range_and_is_finite() -> None:
    images = crops(200)
    wild = JitterSettings(1.0, 1.5, 5.0, 0.5, (0.2, 3.0), (0.2, 3.0), (0.3, 3.0))
    result = jitter(images, wild)
    assert torch.isfinite(result).all()
    assert float(result.min()) >= 0 and float(result.max()) <= 1


def test_crops_of_a_batch_differ() -> None:
    images = crops(1).expand(6, -1, -1, -1, -1).contiguous()
    result = jitter(images, replace(JitterSettings(), probability=1.0))
    for i in range(6):
        for j in range(i):
            assert not torch.allclose(result[i], result[j], atol=1e-3)


def test_the_generator_decides() -> None:
    images = crops(4)
    assert torch.equal(jitter(images, JitterSettings(), 1), jitter(images, JitterSettings(), 1))
    assert not torch.equal(jitter(images, JitterSettings(), 1), jitter(images, JitterSettings(), 2))


def test_each_crop_has_its_own_spacing() -> None:
    """The same sigma in mm is fewer voxels where they are larger."""
    images = crops(1).expand(40, -1, -1, -1, -1).contiguous()
    spacing = torch.tensor([[1.0, 1.0], [4.0, 4.0]]).repeat(20, 1)
    settings = replace(NEUTRAL, blur_sigma_mm=1.5)
    result = colour_jitter(images, spacing, settings, torch.Generator().manual_seed(0))
    change = (result - images).abs().mean(dim=(1, 2, 3, 4))
    assert float(change[0::2].max()) > 2 * float(change[1::2].max())


def coloured(count: int) -> torch.Tensor:
    return torch.rand(count, 3, *SHAPE, generator=torch.Generator().manual_seed(4))


def test_colours_are_blurred_each_by_itself_and_alike() -> None:
    images, sigma = coloured(6), torch.rand(6, 2, generator=torch.Generator().manual_seed(1)) + 0.4
    found = blur_in_plane(images, sigma, 1.5)
    alone = [blur_in_plane(images[:, c : c + 1], sigma, 1.5) for c in range(3)]
    torch.testing.assert_close(found, torch.cat(alone, dim=1))
    assert (found - images).abs().amax() > 0.1


@pytest.mark.parametrize(
    "opened",
    [{"brightness": (0.6, 0.9)}, {"gamma": (0.7, 1.5)}, {"blur_sigma_mm": 3.0, "sharpen": 0.0}],
)
def test_colours_change_together(opened: dict[str, object]) -> None:
    """Three equal colours stay equal, and are what grey becomes with the same draws."""
    grey = crops(8, low=0.2, high=0.8)
    settings = replace(NEUTRAL, **opened)  # type: ignore[arg-type]
    found = jitter(grey.expand(-1, 3, -1, -1, -1).contiguous(), settings, seed=5)
    assert (found - grey).abs().amax() > 0.02
    # Noise of strength 0 is drawn before the steps that come after it.
    if "blur_sigma_mm" in opened:
        torch.testing.assert_close(found[:, :1], jitter(grey, settings, seed=5))
    torch.testing.assert_close(found, found[:, :1].expand_as(found))


def test_contrast_of_colours_is_about_their_common_mean() -> None:
    images = 0.3 + 0.4 * coloured(8)
    found = jitter(images, replace(NEUTRAL, contrast=(0.5, 0.8)), seed=2)
    mean = images.mean(dim=(1, 2, 3, 4), keepdim=True)
    factor = (found - mean) / (images - mean)
    spread = factor.flatten(1)[:, ::37]
    torch.testing.assert_close(spread, spread[:, :1].expand_as(spread), atol=1e-3, rtol=1e-3)
    assert 0.5 <= float(spread.min()) < float(spread.max()) <= 0.8
