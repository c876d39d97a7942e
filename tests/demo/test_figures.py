from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from matplotlib.image import imread

from screener_nnu.demo import figures
from screener_nnu.demo.figures import OverlayCase, StageCurve

SHAPE, SPACING = (20, 30, 40), (4.0, 3.0, 2.0)


@pytest.fixture
def case() -> OverlayCase:
    body = np.zeros(SHAPE, bool)
    body[:, 3:27, 3:37] = True
    lesions = np.zeros(SHAPE, bool)
    lesions[2:6, 5:10, 8:14] = True
    lesions[3, 4:12, 7:16] = True
    scores = np.where(lesions, 9.0, 1.0).astype(np.float32)
    image = np.where(body, 40, -1000).astype(np.int16)
    return OverlayCase(image, SPACING, body, lesions, {"student": scores})


def _pixels(png: bytes) -> np.ndarray:
    return imread(BytesIO(png), format="png")[..., :3]


def test_slice_has_the_proportions_of_the_body(case: OverlayCase) -> None:
    axial, coronal = (_pixels(figures.draw_slice(case, axis, 10)) for axis in (0, 1))
    assert axial.shape[1] / axial.shape[0] == pytest.approx(80 / 90, rel=0.03)
    assert coronal.shape[1] / coronal.shape[0] == pytest.approx(80 / 80, rel=0.03)


def test_head_is_on_top_and_front_is_on_top(case: OverlayCase) -> None:
    image = np.full(SHAPE, -1000, np.int16)
    image[15:, :, :] = 1000  # towards the head
    image[:, :8, :] = 1000  # towards the front
    bright = replace(case, image_hu=image, lesions=np.zeros(SHAPE, bool))
    coronal = _pixels(figures.draw_slice(bright, 1, 20))
    axial = _pixels(figures.draw_slice(bright, 0, 2))
    for picture in (coronal, axial):
        rows = len(picture)
        assert picture[: rows // 8].mean() > 0.9 and picture[-rows // 4 :].mean() < 0.1


def test_map_colours_the_lesion_only(case: OverlayCase) -> None:
    plain = replace(case, lesions=np.zeros(SHAPE, bool))
    index = 3
    window = figures.score_window([case], "student")
    difference = np.abs(
        _pixels(figures.draw_slice(plain, 0, index, "student", window))
        - _pixels(figures.draw_slice(plain, 0, index))
    ).max(axis=-1)
    rows, columns = (len(difference) / 30, difference.shape[1] / 40)
    inside = difference[int(6 * rows) : int(10 * rows), int(9 * columns) : int(14 * columns)]
    assert inside.min() > 0.2
    assert difference[int(14 * rows) :].max() == 0


def test_contour_is_drawn_where_there_is_a_lesion(case: OverlayCase) -> None:
    def coloured(index: int) -> bool:
        pixels = _pixels(figures.draw_slice(case, 0, index))
        return bool((pixels.max(axis=-1) - pixels.min(axis=-1)).max() > 0.3)

    assert coloured(3)
    assert not coloured(15)


def test_shown_slice_has_most_lesion_or_the_highest_score(case: OverlayCase) -> None:
    assert figures.shown_slice(case, 0, "student") == 3
    scores = np.zeros(SHAPE, np.float32)
    scores[11, 20, 20] = 5
    scores[0, 0, 0] = 9  # outside the body
    normal = replace(case, lesions=np.zeros(SHAPE, bool), maps={"student": scores})
    assert [figures.shown_slice(normal, axis, "student") for axis in (0, 1)] == [11, 20]


def test_window_pools_bodies_and_survives_constant_maps(case: OverlayCase) -> None:
    ramp = np.linspace(0, 100, case.body.size, dtype=np.float32).reshape(SHAPE)
    everywhere = replace(case, body=np.ones(SHAPE, bool), maps={"student": ramp})
    assert figures.score_window([everywhere], "student") == pytest.approx((80, 99.8), abs=0.1)
    flat = replace(case, maps={"student": np.ones(SHAPE, np.float32)})
    low, high = figures.score_window([flat], "student")
    assert high > low


def test_curves_are_drawn_also_without_a_reference() -> None:
    for reference in (0.1, float("nan")):
        curve = StageCurve("descriptor", "top-1", [3.0, 2.0], [0.2, 0.4], reference, 60.0)
        assert _pixels(figures.draw_curve(curve)).std() > 0.05


def test_colour_stops_are_colours_that_get_brighter() -> None:
    stops = figures.colour_stops(4)
    brightness = [sum(int(stop[i : i + 2], 16) for i in (1, 3, 5)) for stop in stops]
    assert len(stops) == 4 and brightness == sorted(brightness)
