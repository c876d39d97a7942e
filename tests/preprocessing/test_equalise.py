from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from skimage.exposure import equalize_adapthist

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.equalise import equalise, global_levels

SPACINGS = (4.0, 3.0, 3.0), (3.0, 2.0, 2.0), (-990.5, 480.0)


def test_equals_scikit_image(
    person: Callable[..., np.ndarray], settings: PreprocessingSettings
) -> None:
    image = person((16, 40, 48))
    scaled = ((np.clip(image, -1000, 300) + 1000) / 1300).astype(np.float32)
    wanted = equalize_adapthist(scaled, kernel_size=(2, 5, 6), clip_limit=0.05, nbins=256)
    result = equalise(image, settings)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, wanted, atol=1e-5)


def test_raises_local_contrast(
    person: Callable[..., np.ndarray], settings: PreprocessingSettings
) -> None:
    image = np.clip(person((24, 48, 48)), -1000, 300)
    image[:] = 40 + 10 * np.random.default_rng(0).normal(size=image.shape)
    image[0, 0, 0], image[-1, -1, -1] = -1000, 300
    result = equalise(image, settings)
    assert result.std() > 5 * (image.std() / 1300)
    assert 0 <= result.min() and result.max() <= 1


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_short_axes(
    person: Callable[..., np.ndarray], settings: PreprocessingSettings, axis: int, size: int
) -> None:
    # Three or four voxels in the last axis must not be taken for colours.
    image = np.moveaxis(person((20, 24, 28))[:size], 0, axis)
    result = equalise(image, settings)
    moved = equalise(np.ascontiguousarray(np.moveaxis(image, axis, 0)), settings)
    assert result.shape == image.shape
    np.testing.assert_allclose(np.moveaxis(result, axis, 0), moved, atol=1e-5)
    assert np.isfinite(result).all() and result.min() >= 0 and result.max() <= 1


def test_flat_image_and_switched_off(
    person: Callable[..., np.ndarray], settings: PreprocessingSettings
) -> None:
    flat = np.full((5, 6, 7), 300.0, dtype=np.float32)
    np.testing.assert_array_equal(equalise(flat, settings), np.ones_like(flat))
    image = person()
    plain = equalise(image, replace(settings, equalisation="none"))
    np.testing.assert_allclose(plain, (np.clip(image, -1000, 300) + 1000) / 1300, atol=1e-6)


def test_global_levels_even_out_the_histogram() -> None:
    """Under its curve, 7 tenths of the body spread evenly; equal HU stay equal in every scan."""
    generator = np.random.default_rng(3)
    body = np.concatenate([generator.normal(40, 30, 60_000), generator.normal(-90, 20, 30_000)])
    counts, edges = np.histogram(body, bins=np.arange(-1024.0, 3073.0, 4.0))
    levels = global_levels(counts, edges, (-1000.0, 300.0))
    assert len(levels) == 129 and levels[0] == -1000 and levels[-1] == 300
    made = equalise(body, PreprocessingSettings(*SPACINGS, equalisation="global", hu_levels=levels))
    assert made.dtype == np.float32
    windowed = (np.clip(body, -1000, 300) + 1000) / 1300
    # Empirical distribution of the body: share of voxels below each voxel.
    rank = np.argsort(np.argsort(body)) / len(body)
    np.testing.assert_allclose(made, 0.3 * windowed + 0.7 * rank, atol=0.02)
    assert np.quantile(made, 0.9) - np.quantile(made, 0.1) > 4 * np.ptp(
        np.quantile(windowed, [0.1, 0.9])
    )


def test_equalisations_that_cannot_be_are_refused(settings: PreprocessingSettings) -> None:
    image = np.zeros((4, 5, 6), dtype=np.float32)
    with pytest.raises(ScreenerError, match="must be adaptive, global or none, but is local"):
        equalise(image, replace(settings, equalisation="local"))
    for levels in ((), (5.0,), (5.0, 5.0), (5.0, 1.0)):
        with pytest.raises(ScreenerError, match="hu_levels must be rising"):
            equalise(image, replace(settings, equalisation="global", hu_levels=levels))
    low = equalise(image - 2000, replace(settings, equalisation="global", hu_levels=(0.0, 9.0)))
    assert (low == 0).all()
