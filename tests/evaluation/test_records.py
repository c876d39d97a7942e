from __future__ import annotations

import numpy as np

from screener_nnu.evaluation.records import SampledScores


def draw_voxels(annotated: np.ndarray, case: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the voxels, as their scores."""
    places = np.arange(annotated.size, dtype=np.float32)
    sampled = SampledScores.draw(places, annotated, case, seed)
    return sampled.annotated.astype(int), sampled.other.astype(int)


def test_a_thousand_voxels_of_each_class_without_repeats() -> None:
    rng = np.random.default_rng(0)
    annotated = rng.random(50_000) < 0.1
    ill, other = draw_voxels(annotated, "anna", 0)
    assert ill.size == other.size == 1000 == np.unique(ill).size == np.unique(other).size
    assert annotated[ill].all() and not annotated[other].any()


def test_every_voxel_is_as_likely() -> None:
    annotated = np.arange(20_000) < 5000
    drawn = np.concatenate([draw_voxels(annotated, "a", seed)[1] for seed in range(60)])
    share, _ = np.histogram(drawn, bins=15, range=(5000, 20_000))
    np.testing.assert_allclose(share / drawn.size, 1 / 15, rtol=0.08)


def test_fewer_voxels_are_all_taken() -> None:
    annotated = np.zeros(1500, dtype=bool)
    annotated[[3, 8, 1400]] = True
    ill, other = draw_voxels(annotated, "a", 0)
    np.testing.assert_array_equal(ill, [3, 8, 1400])
    assert other.size == 1000
    assert draw_voxels(np.zeros(10, dtype=bool), "a", 0)[0].size == 0


def test_seed_and_case_decide() -> None:
    annotated = np.arange(9000) % 3 == 0
    first = draw_voxels(annotated, "a", 0)
    np.testing.assert_array_equal(first, draw_voxels(annotated, "a", 0))
    assert (first[1] != draw_voxels(annotated, "b", 0)[1]).any()
    assert (first[1] != draw_voxels(annotated, "a", 1)[1]).any()
