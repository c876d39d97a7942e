from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import (
    BASELINES,
    LOCAL_PIXELS,
    NEED_HISTOGRAM,
    PICTURE_BASELINES,
    BaselineInput,
    baseline_names,
    is_baseline,
)

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


def make_picture(body: np.ndarray) -> BaselineInput:
    grey = np.random.default_rng(3).integers(0, 65536, (1, *body.shape)).astype(np.float32)
    return BaselineInput(grey, body[None], (1.0, 1.0, 1.0))


def test_baselines_of_a_picture_look_in_its_plane_alone() -> None:
    body = np.zeros((23, 31), dtype=bool)
    body[3:-4, 5:-2] = True
    body[10, 12] = False
    given = make_picture(body)
    grey = given.image_hu[0].astype(np.float64)
    scores = {name: score(given) for name, score in PICTURE_BASELINES.items()}
    assert baseline_names(False, pictures=True) == list(scores)
    assert all(is_baseline(name) for name in scores) and not is_baseline("screener")
    for score in scores.values():
        assert score.shape == (1, 23, 31) and score.dtype == np.float32
    np.testing.assert_array_equal(scores["brightness"][0], grey)
    np.testing.assert_array_equal(scores["darkness"][0], -grey)
    np.testing.assert_allclose(
        scores["grey_deviation"][0], abs(grey - grey[body].mean()), rtol=1e-5, atol=1e-2
    )
    local = ndimage.generic_filter(grey, np.std, LOCAL_PIXELS, mode="nearest")
    np.testing.assert_allclose(scores["local_deviation"][0], local, rtol=1e-5)
    y, x = np.meshgrid(np.arange(23) - 11.0, np.arange(31) - 15.0, indexing="ij")
    np.testing.assert_allclose(scores["centre_distance"][0], np.hypot(y, x), rtol=1e-6)
    outside = np.argwhere(~body)
    for place in np.argwhere(body):
        nearest = np.sqrt(((outside - place) ** 2).sum(1).min())
        assert scores["border_depth"][0][tuple(place)] == pytest.approx(nearest, rel=1e-6)
    for one, other in (
        ("centre_distance", "centre_proximity"),
        ("border_depth", "border_proximity"),
    ):
        np.testing.assert_array_equal(scores[one], -scores[other])


def test_a_picture_that_the_body_fills_has_its_own_border() -> None:
    depth = PICTURE_BASELINES["border_depth"](make_picture(np.ones((7, 9), dtype=bool)))
    y, x = np.meshgrid(np.arange(7), np.arange(9), indexing="ij")
    expected = np.minimum.reduce([y + 1, 7 - y, x + 1, 9 - x])
    np.testing.assert_allclose(depth[0], expected)


def test_local_deviation_of_an_even_picture_of_large_values_is_zero() -> None:
    given = BaselineInput(np.full((1, 20, 20), 65535.0), np.ones((1, 20, 20), bool), (1.0,) * 3)
    np.testing.assert_allclose(PICTURE_BASELINES["local_deviation"](given), 0.0, atol=1e-6)
