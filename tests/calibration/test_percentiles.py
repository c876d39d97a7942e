"""Percentiles against the empirical distributions themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from screener_nnu.calibration.percentiles import PercentileMap, ScanShares, ScoreHistogram
from screener_nnu.errors import ScreenerError


def scans(offset: float = 0.0) -> list[np.ndarray]:
    """Of very different sizes, one of them with a heavy tail and one below zero."""
    rng = np.random.default_rng(3)
    made = [
        rng.normal(20, 6, 200_000),
        rng.gamma(2.0, 9.0, 1_000),
        rng.standard_t(3, 50_000) - 5,
    ]
    return [(scan + offset).astype(np.float32) for scan in made]


def mixed(values: list[np.ndarray]) -> PercentileMap:
    histogram = ScoreHistogram()
    for scan in values:
        histogram.add(ScanShares.of(scan))
    return histogram.percentiles()


def share_below(values: list[np.ndarray], scores: np.ndarray) -> np.ndarray:
    """Mean over scans of the percentage of voxels below, by counting."""
    shares = [np.searchsorted(np.sort(scan), scores, side="left") / scan.size for scan in values]
    return 100 * np.mean(shares, axis=0)


@pytest.mark.parametrize("offset", [0.0, -400.0, 1e5])
def test_knots_are_exact(offset: float) -> None:
    values = scans(offset)
    found = mixed(values)
    np.testing.assert_allclose(
        share_below(values, found.scores.astype(np.float32)), found.percentiles, atol=1e-9
    )
    assert (np.diff(found.scores) > 0).all() and (np.diff(found.percentiles) > 0).all()
    assert (found.percentiles[0], found.percentiles[-1]) == (0, 100)


def test_between_the_knots_and_far_up() -> None:
    values = scans()
    found = mixed(values)
    scores = np.random.default_rng(0).uniform(-20, 80, 4000)
    error = np.abs(found.percentile(scores) - share_below(values, scores))
    gaps = np.diff(found.percentiles)
    between = np.clip(np.searchsorted(found.scores, scores) - 1, 0, gaps.size - 1)
    assert (error <= gaps[between] + 1e-9).all()
    # Half a percent in the middle; in the upper tail thirteen percent of the voxels above, or the
    # one voxel in a thousand of the smallest scan.
    above = 100 - found.percentiles[:-1]
    assert (gaps < np.where(above > 1.1, 0.6, 0.13 * above + 0.034)).all()


@pytest.mark.parametrize("percentile", [1.0, 50.0, 99.0, 99.9, 99.99, 99.999])
def test_one_large_scan_against_numpy(percentile: float) -> None:
    scan = np.random.default_rng(1).gumbel(10, 4, 2_000_000).astype(np.float32)
    found = mixed([scan])
    assert found.score_at(percentile) == pytest.approx(np.percentile(scan, percentile), abs=0.12)
    again = found.percentile(np.array(found.score_at(percentile)))
    assert float(again) == pytest.approx(percentile, abs=1e-6)


def test_scans_weigh_the_same() -> None:
    small, large = np.full(10, 1.0), np.full(100_000, 2.0)
    spread = np.linspace(-1e-3, 1e-3, 10), np.linspace(-1e-3, 1e-3, 100_000)
    found = mixed([(a + b).astype(np.float32) for a, b in zip((small, large), spread, strict=True)])
    assert 50.0 <= float(found.percentile(np.array(1.5))) < 50.6
    assert float(found.percentile(np.array(1.002))) == pytest.approx(50.0, abs=0.01)


def test_outside_of_all_scores_and_nan() -> None:
    found = mixed(scans())
    given = found.percentile(np.array([[-1e9, 1e9, np.inf, np.nan]]))
    assert given.shape == (1, 4)
    np.testing.assert_array_equal(given[0, :3], [0, 100, 100])
    assert np.isnan(given[0, 3])


def test_ties() -> None:
    values = np.repeat(np.array([1.0, 5.0, 9.0], dtype=np.float32), [2, 6, 2])
    found = mixed([values])
    between = found.percentile(np.array([0.9, 3.0, 7.0, 9.1]))
    assert between[0] == 0 and between[-1] == 100
    assert 20 <= between[1] <= 80 <= between[2] < 100


def test_json_keeps_the_map() -> None:
    found = mixed(scans())
    again = PercentileMap.from_dict(json.loads(json.dumps(found.to_dict())))
    scores = np.linspace(-30, 100, 1000)
    np.testing.assert_allclose(again.percentile(scores), found.percentile(scores), atol=1e-5)


@pytest.mark.parametrize(
    "scores, percentiles",
    [
        ([1.0, 2.0], [0.0, 99.0]),
        ([1.0, 1.0], [0.0, 100.0]),
        ([1.0, float("nan")], [0.0, 100.0]),
        ([1.0, 2.0, 3.0], [0.0, 100.0]),
        ([1.0, 2.0, 3.0], [0.0, 0.0, 100.0]),
        ([], []),
    ],
)
def test_what_is_no_map_is_refused(scores: list[float], percentiles: list[float]) -> None:
    with pytest.raises(ScreenerError, match="percentiles"):
        PercentileMap.from_dict({"scores": scores, "percentiles": percentiles})
