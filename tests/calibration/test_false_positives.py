"""Thresholds for false positives per scan: by hand, and on scans that nobody has seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.calibration.components import count_components, shared_thresholds, tail_of
from screener_nnu.calibration.false_positives import FalsePositives
from screener_nnu.errors import ScreenerError

RATE = 30.0
"""Components of a scan whose peaks have heights of an exponential distribution."""
VOXEL_ML = 0.1


def poisson(seed: int, scans: int, volumes: tuple[float, ...] = (0.1,)) -> FalsePositives:
    """Counts of scans whose numbers of peaks above t are Poisson with mean RATE exp(-t)."""
    rng = np.random.default_rng(seed)
    peaks = [rng.exponential(size=rng.poisson(RATE)) for _ in range(scans)]
    thresholds = np.append(np.linspace(0, 6, 150), max(p.max() for p in peaks) + 6)
    counts = np.array([[[(p > t).sum() for t in thresholds]] * len(volumes) for p in peaks])
    return FalsePositives(thresholds, volumes, counts.astype(np.int32))


def lowest_by_hand(thresholds: np.ndarray, counts: np.ndarray, asked: float) -> float:
    chosen = thresholds[-1]
    for place in range(thresholds.size - 1, -1, -1):
        if counts[:, place].mean() > asked:
            return float(chosen)
        chosen = thresholds[place]
    return float(chosen)


@pytest.mark.parametrize("asked", [0.5, 1.0, 2.0, 5.0])
def test_against_a_search_from_above(asked: float) -> None:
    made = poisson(1, 12)
    found = made.threshold_for(asked)
    counts = made.counts[:, 0].astype(float)
    assert found.threshold == lowest_by_hand(made.thresholds, counts, asked)
    place = list(made.thresholds).index(found.threshold)
    assert found.held_out == counts[:, place].mean() <= asked
    assert counts[:, place - 1].mean() > asked
    left_out = []
    for scan in range(12):
        others = np.delete(counts, scan, axis=0)
        chosen = lowest_by_hand(made.thresholds, others, asked)
        left_out.append(counts[scan, list(made.thresholds).index(chosen)])
    assert found.left_out == pytest.approx(np.mean(left_out))
    assert found.left_out_interval[0] <= found.left_out <= found.left_out_interval[1]


def test_components_that_grew_together_are_not_few() -> None:
    thresholds = np.arange(6.0)
    counts = np.array([[[1, 1, 9, 4, 2, 0]], [[1, 1, 9, 4, 2, 0]]], dtype=np.int32)
    found = FalsePositives(thresholds, (0.1,), counts).threshold_for(2.0)
    assert found.threshold == 4.0


def test_intervals_hold_what_they_promise() -> None:
    covered = 0
    for seed in range(120):
        found = poisson(seed, 30).threshold_for(2.0)
        low, high = found.interval
        covered += low <= np.log(RATE / 2.0) <= high
    # 95 % of 120 are 114; a bootstrap of 30 scans and steps of 0.04 nats may lose some.
    assert 104 <= covered <= 120


@pytest.mark.parametrize("asked", [0.5, 1.0, 2.0, 5.0])
def test_left_out_scans_get_what_was_asked_for(asked: float) -> None:
    """Over many calibrations: rounding to a step of the thresholds is on the side of fewer."""
    found = [poisson(1000 + seed, 12).threshold_for(asked).left_out for seed in range(100)]
    error = np.sqrt(asked / 12 / 100)
    assert abs(np.mean(found) - asked) < 4 * error + 0.05 * asked


def blobs(seed: int, shape: tuple[int, int, int] = (30, 40, 40)) -> tuple[np.ndarray, np.ndarray]:
    """A quiet map with a Poisson number of balls of many heights, in and outside of a body."""
    rng = np.random.default_rng([seed, 77])
    score = rng.normal(0, 0.3, shape).astype(np.float32)
    grid = np.indices(shape)
    for _ in range(rng.poisson(8)):
        centre = rng.uniform(4, np.array(shape) - 4)
        distance = np.sqrt(((grid - centre[:, None, None, None]) ** 2).sum(0))
        height = 2 + rng.exponential(3)
        score = np.maximum(score, np.where(distance < 2.2, height, score)).astype(np.float32)
    body = np.zeros(shape, dtype=bool)
    body[:, 3:37, 3:37] = True
    return score, body


def test_scans_never_seen_have_as_many_as_asked_for() -> None:
    volumes = (0.03, 0.1, 0.5)
    tails = [tail_of(*blobs(seed), VOXEL_ML) for seed in range(40)]
    thresholds = shared_thresholds(tails)
    counts = np.stack([count_components(tail, thresholds, volumes) for tail in tails])
    made = FalsePositives(thresholds.astype(float), volumes, counts)
    for asked in (1.0, 2.0):
        found = made.threshold_for(asked, 0.5)
        assert found.volume_ml == 0.5
        obtained = []
        for seed in range(1000, 1120):
            score, body = blobs(seed)
            labels, number = ndimage.label((score > found.threshold) & body, np.ones((3, 3, 3)))
            sizes = np.bincount(labels.ravel(), minlength=number + 1)[1:]
            obtained.append((sizes * VOXEL_ML >= 0.5 - 1e-9).sum())
        error = np.sqrt(asked / 40 + asked / 120)
        assert abs(np.mean(obtained) - asked) < 3 * error
        assert found.interval[0] <= found.threshold <= found.interval[1]


def test_least_volume_is_never_above_the_one_asked_for() -> None:
    made = poisson(2, 8, (0.03, 0.1, 0.5))
    made.counts[:, 2] //= 2
    assert made.threshold_for(2.0, 0.5).volume_ml == 0.5
    assert made.threshold_for(2.0, 0.49).volume_ml == 0.1
    assert made.threshold_for(2.0, 9.0).threshold < made.threshold_for(2.0, 0.1).threshold
    with pytest.raises(ScreenerError, match="0.03 ml or more"):
        made.threshold_for(2.0, 0.01)


def test_more_than_the_scans_can_tell_is_refused() -> None:
    made = poisson(4, 11)
    with pytest.raises(ScreenerError, match="11 held-out.*less than one in all.*0.1 or more"):
        made.threshold_for(0.05)
    assert made.threshold_for(1 / 11).held_out <= 1 / 11
    for odd in (0.0, -1.0, float("nan")):
        with pytest.raises(ScreenerError, match="cannot tell"):
            made.threshold_for(odd)
    with pytest.raises(ScreenerError, match="at most .* ask for fewer"):
        made.threshold_for(1000)


def test_one_scan_has_no_left_out_figure() -> None:
    found = poisson(5, 1).threshold_for(2.0)
    assert np.isnan(found.left_out) and np.isnan(found.left_out_interval).all()
    assert found.interval == (found.threshold, found.threshold)


def test_per_scan_is_the_count_above_a_threshold() -> None:
    made = poisson(6, 9)
    place = 70
    middle = made.thresholds[place : place + 2].mean()
    assert made.per_scan(middle) == made.counts[:, 0, place].mean()
    assert made.per_scan(1e9) == 0
    assert np.isnan(made.per_scan(-1.0))


def test_json_keeps_every_count() -> None:
    made = poisson(7, 5, (0.1, 1.0))
    again = FalsePositives.from_dict(json.loads(json.dumps(made.to_dict())))
    np.testing.assert_array_equal(again.counts, made.counts)
    assert again.threshold_for(2.0).threshold == pytest.approx(made.threshold_for(2.0).threshold)
