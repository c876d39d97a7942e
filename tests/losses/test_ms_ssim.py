"""Structural similarity against scikit-image, and at several scales against SciPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.metrics import structural_similarity

from screener_nnu.losses.ms_ssim import (
    FIVE_SCALES,
    FOUR_SCALES,
    fitting_weights,
    ms_ssim,
    ms_ssim_map,
    ssim,
)

SIZES = {"256": (1, 256, 256), "96x128": (1, 96, 128), "volume": (24, 28, 32)}


def pair(size: Sequence[int], noise: float = 0.1, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image in [0, 1] and a noisy copy of it, (D, H, W)."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random(size), [0 if n == 1 else 2 for n in size])
    image = (image - image.min()) / np.ptp(image)
    return image, (image + rng.normal(0, noise, size)).clip(0, 1)


def batch(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)[:, None]).float()


def smoothed(image: np.ndarray, window: int) -> np.ndarray:
    """Gaussian means of an image without axes of 1."""
    radius = window // 2
    sigma = 1.5 * window / 11
    return ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=(radius + 0.01) / sigma)


def reference_terms(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Luminance times contrast, and contrast, of each voxel (Wang et al. 2004, eq. 6 to 13)."""
    mean_x, mean_y = smoothed(x, window), smoothed(y, window)
    deviation_x = smoothed(x * x, window) - mean_x**2
    deviation_y = smoothed(y * y, window) - mean_y**2
    shared = smoothed(x * y, window) - mean_x * mean_y
    contrast = (2 * shared + 0.03**2) / (deviation_x + deviation_y + 0.03**2)
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
    return luminance * contrast, contrast


def reference(x: np.ndarray, y: np.ndarray, window: int, weights: Sequence[float]) -> float:
    """Multi-scale similarity in double precision, scale by scale."""
    x, y = x.squeeze(), y.squeeze()
    product = 1.0
    for scale, weight in enumerate(weights):
        terms = reference_terms(x, y, window)
        inner = (slice(window // 2, -(window // 2)),) * x.ndim
        product *= terms[0 if scale == len(weights) - 1 else 1][inner].mean() ** weight
        x, y = halved(x), halved(y)
    return product


def halved(image: np.ndarray) -> np.ndarray:
    for axis in range(image.ndim):
        image = np.moveaxis(image, axis, 0)
        pairs = [image[i : i + 2].mean(axis=0) for i in range(0, len(image), 2)]
        image = np.moveaxis(np.stack(pairs), 0, axis)
    return image


@pytest.mark.parametrize("window", [3, 5, 11])
def test_every_side_that_is_taken_has_a_value(window: int) -> None:
    """Also where halving an odd side leaves hardly more than a window."""
    for side in range(window, 180):
        weights = fitting_weights((1, side, side), window)
        x = torch.rand(1, 1, 1, side, side)
        assert torch.isfinite(ms_ssim(x, x, window, weights)).all(), side


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_one_scale_is_that_of_scikit_image(size: tuple[int, ...]) -> None:
    x, y = pair(size)
    expected = structural_similarity(
        x.squeeze(),
        y.squeeze(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
    )
    assert float(ssim(batch(x), batch(y))) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("size", "window"),
    [(SIZES["256"], 11), (SIZES["256"], 3), (SIZES["96x128"], 11), (SIZES["volume"], 5)],
)
def test_many_scales_are_those_of_a_plain_implementation(
    size: tuple[int, int, int], window: int
) -> None:
    weights = fitting_weights(size, window)
    images = [pair(size, noise, seed) for seed, noise in enumerate((0.02, 0.3))]
    x, y = (batch(*images) for images in zip(*images, strict=True))
    found = ms_ssim(x, y, window, weights)
    expected = [reference(*one, window, weights) for one in images]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert expected[0] > expected[1] + 0.05


@pytest.mark.parametrize("size", [(1, 65, 70), (18, 20, 22)])
def test_maps_are_weighted_means_over_scales(size: tuple[int, int, int]) -> None:
    x, y = pair(size)
    weights = (0.3, 0.7)
    found = ms_ssim_map(batch(x), batch(y), 5, weights)[0].numpy()
    expected = np.zeros(size)
    for scale, weight in enumerate(weights):
        one, other = x.squeeze(), y.squeeze()
        if scale:
            one, other = halved(one), halved(other)
        similarity = torch.from_numpy(reference_terms(one, other, 5)[0])
        similarity = similarity.reshape(1, 1, *([1] if size[0] == 1 else []), *one.shape)
        upsampled = torch.nn.functional.interpolate(similarity, size, mode="trilinear")
        expected += weight * upsampled[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_equal_images_are_at_one_and_noise_lowers_it(size: tuple[int, int, int]) -> None:
    window = 11 if size[0] == 1 else 5
    weights = fitting_weights(size, window)
    x = batch(pair(size)[0])
    assert float(ms_ssim(x, x, window, weights)) == pytest.approx(1, abs=1e-6)
    assert float((ms_ssim_map(x, x, window, weights) - 1).abs().max()) < 1e-5
    values = [
        float(ms_ssim(x, batch(pair(size, noise)[1]), window, weights))
        for noise in (0.01, 0.05, 0.1, 0.2, 0.4)
    ]
    assert values == sorted(values, reverse=True) and values[-1] < 0.9


def test_a_change_shows_in_the_map_where_it_is() -> None:
    x = batch(pair((1, 64, 64))[0])
    y = x.clone()
    y[..., 40:48, 10:18] = 1 - y[..., 40:48, 10:18]
    low = 1 - ms_ssim_map(x, y, 5, (0.5, 0.5))[0, 0]
    assert float(low[40:48, 10:18].mean()) > 20 * float(low[:20, 40:].mean())


def test_gradients_are_finite_and_lead_to_the_image() -> None:
    x = batch(pair((1, 48, 48))[0])
    y = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = fitting_weights((1, 48, 48), 5)
    optimiser = torch.optim.Adam([y], 0.05)
    first = ms_ssim(x, y, 5, weights).item()
    for _ in range(60):
        optimiser.zero_grad()
        (1 - ms_ssim(x, y, 5, weights)).sum().backward()
        assert torch.isfinite(y.grad).all()
        optimiser.step()
    assert first < 0.5 < 0.9 < ms_ssim(x, y, 5, weights).item()
    inverse = (1 - x).requires_grad_()
    ms_ssim(x, inverse, 5, weights).sum().backward()
    assert torch.isfinite(inverse.grad).all()


def test_channels_are_averaged() -> None:
    x, y = batch(*pair((1, 40, 40))), batch(*pair((1, 40, 40), seed=3))
    grey = [ms_ssim(x[i : i + 1], y[i : i + 1], 3, FOUR_SCALES) for i in (0, 1)]
    both = ms_ssim(x.transpose(0, 1), y.transpose(0, 1), 3, FOUR_SCALES)
    assert float(both) == pytest.approx(float(sum(grey)) / 2, abs=1e-6)


def test_scales_that_fit() -> None:
    assert fitting_weights((1, 256, 256), 11) == pytest.approx(FIVE_SCALES, abs=1e-4)
    assert fitting_weights((1, 32, 32), 3) == pytest.approx(FOUR_SCALES)
    assert len(fitting_weights((40, 40, 40), 5)) == 4
    assert len(fitting_weights((1, 160, 500), 11)) == 4
    three = fitting_weights((16, 16, 16), 3)
    assert sum(three) == pytest.approx(1)
    assert three[1] / three[0] == pytest.approx(FOUR_SCALES[1] / FOUR_SCALES[0])
    with pytest.raises(ValueError, match=r"\[1, 10, 30\] has no room for a window of 11"):
        fitting_weights((1, 10, 30), 11)


@pytest.mark.parametrize("function", [ms_ssim, ms_ssim_map])
def test_images_too_small_for_the_scales_are_refused(function: object) -> None:
    images = torch.zeros(1, 1, 1, 160, 200)
    with pytest.raises(ValueError, match="sides must be longer than 160"):
        function(images, images)  # type: ignore[operator]
    with pytest.raises(ValueError, match="no middle"):
        function(images, images, 4, (1.0,))  # type: ignore[operator]
    assert float(ms_ssim(images, images, 3, FOUR_SCALES)) == 1
