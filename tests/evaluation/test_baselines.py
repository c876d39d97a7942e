from __future__ import annotations

import itertools

import numpy as np
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import BASELINES, NEED_HISTOGRAM, BaselineInput

SPACING = (3.0, 1.0, 2.0)


def make_input(shape: tuple[int, int, int] = (4, 5, 6)) -> BaselineInput:
    rng = np.random.default_rng(0)
    image = rng.integers(-100, 200, shape).astype(np.int16)
    body = rng.random(shape) < 0.7
    edges = np.array([-150.0, 0.0, 50.0, 150.0])
    return BaselineInput(image, body, SPACING, edges, np.array([8.0, 90.0, 0.0]))


@pytest.mark.parametrize("name", BASELINES)
def test_one_signature_and_shape(name: str) -> None:
    given = make_input()
    score = BASELINES[name](given)
    assert score.shape == given.image_hu.shape
    assert score.dtype == np.float32 and np.isfinite(score).all()


def test_hu_deviation_uses_the_mean_of_the_body() -> None:
    image = np.array([[[10, 20, 1000]]], dtype=np.int16)
    body = np.array([[[True, True, False]]])
    score = BASELINES["hu_deviation"](BaselineInput(image, body, SPACING))
    np.testing.assert_allclose(score, [[[5, 5, 985]]])


def test_hu_rarity_is_minus_log_density() -> None:
    given = make_input((1, 1, 7))
    values = np.array([[[-400, -150, -1, 0, 49, 50, 900]]], dtype=np.int16)
    given = BaselineInput(values, given.body, SPACING, given.hu_edges, given.hu_counts)
    share = np.array([9, 91, 1]) / 101
    low, middle, high = -np.log(share / np.array([150, 50, 100]))
    expected = [[[low, low, low, middle, middle, high, high]]]
    np.testing.assert_allclose(BASELINES["hu_rarity"](given), expected, rtol=1e-6)


def test_smoothing_is_in_mm_and_within_the_body() -> None:
    edges = np.linspace(-50.0, 150.0, 401)
    counts = np.exp(np.arange(400) * 0.01)
    image = np.zeros((21, 41, 31), dtype=np.float32)
    image[:, :20] = -1000
    image[10, 25, 15] = 100
    body = np.zeros(image.shape, dtype=bool)
    body[:, 20:] = True
    given = BaselineInput(image, body, SPACING, edges, counts)
    z, y, x = np.meshgrid(*(np.arange(n) for n in image.shape), indexing="ij")
    squared = (3.0 * (z - 10)) ** 2 + (y - 25.0) ** 2 + (2.0 * (x - 15)) ** 2
    kernel = np.exp(-squared / (2 * 2.0**2))
    bins = (100 * kernel / kernel.sum() + 50) / 0.5
    expected = -np.log((counts[bins.astype(int)] + 1) / (counts + 1).sum() / 0.5)
    score = BASELINES["smoothed_hu_rarity"](given)
    # Within one bin of the sampled Gaussian, and no trace of the air under the skin.
    np.testing.assert_allclose(score[body], expected[body], atol=0.03)
    np.testing.assert_allclose(score[:, 20, :3], expected[10, 20, 0], atol=0.011)


def test_centre_distance_in_mm() -> None:
    given = make_input((3, 4, 5))
    score = BASELINES["centre_distance"](given)
    for z, y, x in itertools.product(range(3), range(4), range(5)):
        expected = np.sqrt((3 * (z - 1)) ** 2 + (y - 1.5) ** 2 + (2 * (x - 2)) ** 2)
        assert score[z, y, x] == pytest.approx(expected, rel=1e-6)


def test_skin_depth_in_mm_against_brute_force() -> None:
    given = make_input((6, 7, 5))
    body = np.zeros((6, 7, 5), dtype=bool)
    body[1:5, 1:6, 1:5] = True
    body[2, 3, 2] = False
    given = BaselineInput(given.image_hu, body, SPACING)
    outside = np.argwhere(~body) * SPACING
    score = BASELINES["skin_depth"](given)
    for voxel in itertools.product(range(6), range(7), range(5)):
        nearest = np.linalg.norm(outside - np.array(voxel) * SPACING, axis=1).min()
        assert score[voxel] == pytest.approx(nearest, rel=1e-6)


def test_skin_depth_of_a_body_that_fills_or_leaves_the_volume() -> None:
    image = np.zeros((3, 5, 3), dtype=np.int16)
    full = BASELINES["skin_depth"](BaselineInput(image, np.ones(image.shape, bool), SPACING))
    np.testing.assert_allclose(full[1, :, 1], [1, 2, 3, 2, 1])
    empty = BASELINES["skin_depth"](BaselineInput(image, np.zeros(image.shape, bool), SPACING))
    assert not empty.any()


def test_both_orientations() -> None:
    given = make_input()
    for one, other in (("centre_distance", "centre_proximity"), ("skin_depth", "skin_proximity")):
        np.testing.assert_array_equal(BASELINES[one](given), -BASELINES[other](given))


def test_what_is_missing_is_said() -> None:
    image = np.zeros((2, 2, 2), dtype=np.int16)
    for name in NEED_HISTOGRAM:
        with pytest.raises(ScreenerError, match="histogram"):
            BASELINES[name](BaselineInput(image, np.ones(image.shape, bool), SPACING))
    with pytest.raises(ScreenerError, match="empty"):
        BASELINES["hu_deviation"](BaselineInput(image, np.zeros(image.shape, bool), SPACING))
