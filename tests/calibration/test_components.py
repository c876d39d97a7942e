"""Components above thresholds, counted by labelling each thresholded map."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.calibration.components import (
    count_components,
    least_voxels,
    shared_thresholds,
    tail_of,
)

VOXEL_ML = 0.05
VOLUMES = (0.03, 0.1, 0.4, 2.0)


def scan(seed: int, shape: tuple[int, int, int] = (17, 40, 31)) -> tuple[np.ndarray, np.ndarray]:
    """A map of blobs and a body that cuts some of them."""
    rng = np.random.default_rng(seed)
    score = ndimage.gaussian_filter(rng.normal(size=shape), (1.0, 1.6, 1.3)) * 40
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return score.astype(np.float32), (x / 0.9) ** 2 + (y / 0.8) ** 2 < 1


def by_labelling(score: np.ndarray, body: np.ndarray, threshold: float) -> list[int]:
    labels, number = ndimage.label((score > threshold) & body, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=number + 1)[1:]
    return [int((sizes * VOXEL_ML >= volume - 1e-9).sum()) for volume in VOLUMES]


def test_counts_are_those_of_labelling() -> None:
    made = [scan(seed) for seed in range(3)]
    tails = [tail_of(score, body, VOXEL_ML) for score, body in made]
    thresholds = shared_thresholds(tails)
    assert thresholds.size > 50 and (np.diff(thresholds) > 0).all()
    total = 0
    for (score, body), tail in zip(made, tails, strict=True):
        found = count_components(tail, thresholds, VOLUMES)
        expected = np.array([by_labelling(score, body, t) for t in thresholds]).T
        np.testing.assert_array_equal(found, expected)
        assert not found[:, -1].any()
        total += found.sum()
    assert total > 500


def test_a_threshold_itself_is_not_above() -> None:
    score = np.zeros((5, 5, 200), dtype=np.float32)
    score[2, 2, [10, 50]] = 7.0, 9.0
    tail = tail_of(score, np.ones(score.shape, bool), 1.0)
    found = count_components(tail, np.array([6.9, 7.0, 9.0], dtype=np.float32), (1.0,))
    np.testing.assert_array_equal(found, [[2, 1, 0]])


def test_tail_holds_all_of_the_body_above_its_floor() -> None:
    score, body = scan(5)
    tail = tail_of(score, body, VOXEL_ML)
    np.testing.assert_array_equal(tail.places, np.flatnonzero((score > tail.floor) & body))
    np.testing.assert_array_equal(tail.scores, score[(score > tail.floor) & body])
    assert tail.body_voxels == body.sum()
    assert tail.scores.size == int(0.05 * body.sum())


def test_an_outlying_scan_does_not_cut_the_thresholds_of_the_others() -> None:
    (score, body), (other, other_body) = scan(1), scan(2)
    tails = [tail_of(score, body, VOXEL_ML, 8.0), tail_of(other + 30, other_body, VOXEL_ML, 8.0)]
    thresholds = shared_thresholds(tails)
    assert thresholds[0] <= 8.0 and np.diff(thresholds).max() < 0.6
    for tail, values, inside in zip(tails, (score, other + 30), (body, other_body), strict=True):
        expected = np.array([by_labelling(values, inside, t) for t in thresholds[:20]]).T
        np.testing.assert_array_equal(count_components(tail, thresholds, VOLUMES)[:, :20], expected)


def test_thresholds_stop_at_the_highest_floor() -> None:
    first, second = scan(1), scan(2)
    tails = [tail_of(s + o, b, VOXEL_ML) for (s, b), o in ((first, 0.0), (second, 6.0))]
    thresholds = shared_thresholds(tails)
    assert thresholds[0] == np.float32(max(t.floor for t in tails))
    assert thresholds[-1] == max(t.scores.max() for t in tails)


@pytest.mark.parametrize("volume, voxel", [(0.1, 0.05), (0.1, 0.03), (1e-6, 2.0), (0.3, 0.1)])
def test_least_voxels(volume: float, voxel: float) -> None:
    found = least_voxels(volume, voxel)
    assert found * voxel >= volume - 1e-9
    assert found == 1 or (found - 1) * voxel < volume - 1e-9
    assert isinstance(found, int) and found >= math.floor(volume / voxel)
