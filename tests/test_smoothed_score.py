"""The score of a blurred map against explicit sums, and what it is for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import skimage.filters

from screener_nnu.smoothed_score import smoothed_score


def by_hand(scores: np.ndarray, body: np.ndarray) -> float:
    """Weighted means over the body around each of its pixels, one by one."""
    sigma = max(scores.shape) / 64
    inside = [(int(y), int(x)) for y, x in np.argwhere(body)]
    means = []
    for y, x in inside:
        total = weights = 0.0
        for v, u in inside:
            weight = math.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * sigma**2))
            total, weights = total + weight * scores[v, u], weights + weight
        means.append(total / weights)
    return max(means)


@pytest.mark.parametrize("shape", [(30, 40), (40, 17), (1, 60)])
def test_equals_sums_over_the_body(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(shape))
    scores = random.normal(size=shape) - 3  # below zero, as log-densities may make them
    body = random.uniform(size=shape) > 0.4
    assert smoothed_score(scores, body) == pytest.approx(by_hand(scores, body), abs=2e-3)
    # What lies outside the body has no say, whatever it is.
    assert smoothed_score(np.where(body, scores, 1e9), body) == smoothed_score(scores, body)


@pytest.mark.parametrize("shape", [(256, 192), (200, 256)])
def test_of_a_whole_picture_it_is_the_blur_with_four_pixels(shape: tuple[int, int]) -> None:
    scores = np.random.default_rng(1).normal(size=shape)
    scores[100:120, 90:110] += 4  # far from the border
    blurred = skimage.filters.gaussian(scores, 4, mode="reflect", preserve_range=True)
    found = smoothed_score(scores.astype(np.float32), np.ones(shape, bool))
    assert found == pytest.approx(blurred.max(), abs=1e-3)


def test_a_pixel_counts_little_and_a_blob_much() -> None:
    body = np.ones((128, 128), bool)
    pixel, blob = np.zeros((2, 128, 128))
    pixel[40, 40] = 1
    blob[32:48, 32:48] = 1
    assert pixel.max() == blob.max()
    assert smoothed_score(pixel, body) < 0.1 < 0.9 < smoothed_score(blob, body)


def test_the_border_counts_no_zeros() -> None:
    scores, body = np.full((90, 128), 7.0), np.zeros((90, 128), bool)
    body[5:60, 3:100] = True
    assert smoothed_score(scores, body) == pytest.approx(7)
    scores[5:15, 3:13] = 9
    corner = smoothed_score(scores, body)
    scores = np.roll(scores, (20, 40), axis=(0, 1))
    assert corner >= smoothed_score(np.where(body, scores, 0), body) > 8


@pytest.mark.parametrize("factor", [3, 8])
def test_pictures_of_any_size_have_the_same_score(factor: int) -> None:
    """Of large ones means of blocks are blurred."""
    scores = np.random.default_rng(2).normal(size=(300, 410))
    body = np.ones(scores.shape, bool)
    body[:70, :90] = False
    large = scores.repeat(factor, axis=0).repeat(factor, axis=1)
    large_body = body.repeat(factor, axis=0).repeat(factor, axis=1)
    assert smoothed_score(large, large_body) == pytest.approx(
        smoothed_score(scores, body), rel=0.02
    )
    odd = smoothed_score(large[:-1, :-2], large_body[:-1, :-2])
    assert odd == pytest.approx(smoothed_score(large, large_body), rel=0.02)
