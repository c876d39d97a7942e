"""Codes of HU and scores, and volumes as text."""

from __future__ import annotations

import numpy as np
import pytest

from screener_nnu.viewer.encoding import HU_LEVELS, ScoreScale, encode_hu, pack, unpack


def test_each_hu_gets_the_code_of_a_neighbouring_level() -> None:
    hu = np.arange(-1024, 2320, 0.7)
    shown = HU_LEVELS[encode_hu(hu)]
    gaps = np.abs(hu[:, None] - HU_LEVELS).min(axis=1)
    step = np.diff(HU_LEVELS)[np.searchsorted(HU_LEVELS, hu, side="right").clip(1, 255) - 1]
    assert HU_LEVELS.shape == (256,) and (np.diff(HU_LEVELS) > 0).all()
    np.testing.assert_allclose(np.abs(shown - hu), gaps, atol=1e-9)  # the nearest one
    assert (np.abs(shown - hu) <= step / 2 + 1e-9).all()


@pytest.mark.parametrize(("window", "greys"), [((0, 80), 32), ((-160, 240), 160)])
def test_narrow_windows_have_enough_greys(window: tuple[int, int], greys: int) -> None:
    low, high = window
    assert ((HU_LEVELS >= low) & (HU_LEVELS < high)).sum() == greys


def test_values_beyond_the_levels_are_clipped() -> None:
    assert encode_hu(np.array([-3000.0, -1024.0, 2320.0, 9000.0])).tolist() == [0, 0, 255, 255]


def test_scores_are_kept_to_half_a_step_and_nothing_is_shown_outside_the_body() -> None:
    generator = np.random.default_rng(0)
    score = generator.gamma(2, 4, (6, 7, 8))
    body = generator.random(score.shape) < 0.6
    scale = ScoreScale.of_scores(score[body])
    codes = scale.encode(score, body)
    assert ((codes == 0) == ~body).all()
    back = scale.values[codes[body].astype(int) - 1]
    half = (scale.high - scale.low) / 254 / 2
    expected = np.clip(score[body], scale.low, scale.high)
    np.testing.assert_allclose(back, expected, atol=half * 1.001)
    assert scale.high == score[body].max()


def test_a_map_of_one_score_has_a_scale() -> None:
    scale = ScoreScale.of_scores(np.full(10, 3.0))
    assert scale.high > scale.low
    assert scale.encode(np.full(2, 3.0), np.array([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize("axes", [(), (2,), (2, 1, 0)])
def test_packed_volumes_come_back_bit_by_bit(axes: tuple[int, ...]) -> None:
    codes = np.random.default_rng(1).integers(0, 256, (5, 4, 7)).astype(np.uint8)
    codes[2:] = np.array([0, 255, 0, 255, 1, 254, 128], np.uint8)  # differences wrap around
    text = pack(codes, axes)
    assert (unpack(text, (5, 4, 7), axes) == codes).all()
    assert pack(codes, axes) == text
