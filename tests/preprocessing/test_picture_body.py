"""What is lit, of pictures that are drawn as cameras and probes frame them."""

from __future__ import annotations

import numpy as np
import pytest

from screener_nnu.preprocessing.picture_body import lit_area

SHAPE = (120, 160)
LEVEL = 15.0
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def fundus() -> np.ndarray:
    """A circle that is cut off above and below."""
    return (Y - 60) ** 2 + (X - 80) ** 2 < 66**2


def sector() -> np.ndarray:
    """Of an ultrasound probe above the picture."""
    radius, angle = np.hypot(Y + 20, X - 80), np.arctan2(X - 80, Y + 20)
    return (radius > 30) & (radius < 125) & (abs(angle) < 0.6)


def octagon() -> np.ndarray:
    """Of an endoscope."""
    dy, dx = abs(Y - 60), abs(X - 80)
    return (dy < 55) & (dx < 60) & (dy + dx < 90)


def drawn(shape: np.ndarray, noise: float = 6.0, seed: int = 0) -> np.ndarray:
    """Values of 60 to 180 in a shape, compressed black around it."""
    rng = np.random.default_rng(seed)
    inside = 120 + 40 * np.sin(X / 9) * np.cos(Y / 7) + rng.normal(0, 5, SHAPE)
    return np.where(shape, inside, abs(rng.normal(0, noise / 3, SHAPE))).clip(0, 255)


def overlap(found: np.ndarray, expected: np.ndarray) -> float:
    return float((found & expected).sum() / (found | expected).sum())


@pytest.mark.parametrize("shape", [fundus, sector, octagon])
def test_border_is_taken_off(shape) -> None:  # type: ignore[no-untyped-def]
    found = lit_area(drawn(shape()), LEVEL)
    assert found.dtype == bool and overlap(found, shape()) > 0.97


def test_letters_in_the_border_are_not_lit() -> None:
    picture = drawn(sector())
    picture[4:10, 4:9], picture[4:10, 12:17] = 255, 255
    picture[100:112, 140:158:3] = 255
    found = lit_area(picture, LEVEL)
    assert overlap(found, sector()) > 0.97
    assert not found[:12, :20].any()


def test_dark_places_inside_stay() -> None:
    picture, shape = drawn(fundus()), fundus()
    hole = (Y - 70) ** 2 + (X - 60) ** 2 < 12**2
    picture[hole] = 0
    found = lit_area(picture, LEVEL)
    assert found[hole].all() and overlap(found, shape) > 0.97


def test_a_narrow_gap_lets_no_black_in() -> None:
    picture, shape = drawn(fundus()), fundus()
    picture[(Y - 70) ** 2 + (X - 60) ** 2 < 12**2] = 0
    picture[70:72, :60] = 0  # two pixels from the side to the dark place
    assert overlap(lit_area(picture, LEVEL), shape) > 0.95


def test_two_views_beside_each_other_both_count() -> None:
    both = (abs(Y - 60) < 40) & ((abs(X - 40) < 30) | (abs(X - 125) < 25))
    assert overlap(lit_area(drawn(both), LEVEL), both) > 0.97


def test_a_border_of_one_pixel_is_found() -> None:
    inner = (Y > 0) & (Y < SHAPE[0] - 1) & (X > 0) & (X < SHAPE[1] - 1)
    np.testing.assert_array_equal(lit_area(drawn(inner), LEVEL), inner)


@pytest.mark.parametrize(
    "picture",
    [
        drawn(np.ones(SHAPE, bool)),
        np.full(SHAPE, 3.0),  # all of it black
        drawn((Y - 60) ** 2 + (X - 80) ** 2 < 20**2),  # 7 % are lit
        np.full((2, 2), 100.0),
        np.array([[0.0, 100.0], [100.0, 100.0]]),
    ],
)
def test_where_nothing_is_border_all_of_the_picture_counts(picture: np.ndarray) -> None:
    found = lit_area(picture, LEVEL)
    assert found.shape == picture.shape and (found.all() or picture.size == 4)


def test_a_level_below_all_values_takes_everything() -> None:
    assert lit_area(drawn(octagon()), -1.0).all()
