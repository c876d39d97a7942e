"""Distributions of crop pairs, positives and masks over some thousands of draws, lengths in mm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from screener_nnu.plans import ContrastSettings, MaskSettings, OptimiserSettings
from screener_nnu.sampling import crops
from screener_nnu.sampling.crops import (
    Box,
    draw_pair,
    draw_positives,
    intersect,
    voxels_per_crop,
)
from screener_nnu.sampling.masks import block_masks

torch.set_num_threads(1)
CROP, SPACING, STORED = (64, 96, 96), (2.25, 1.5, 1.5), (1.5, 1.0, 0.8)
COVERED = voxels_per_crop(CROP, SPACING, STORED)
LARGE = (600, 700, 800)


def pairs(
    count: int,
    shape: tuple[int, int, int] = LARGE,
    covered: tuple[float, float, float] = COVERED,
    scale: tuple[float, float] = (2 / 3, 4 / 3),
    min_overlap: float = 0.0,
    seed: int = 0,
) -> list[tuple[Box, Box]]:
    generator = np.random.default_rng(seed)
    return [draw_pair(generator, shape, covered, scale, min_overlap) for _ in range(count)]


@pytest.mark.parametrize("scale", [(2 / 3, 4 / 3), (2 / 3, 8 / 3)])
def test_crop_spacing_in_mm_is_uniform_per_axis_and_box(scale: tuple[float, float]) -> None:
    """At 1.5 x 1.5 x 2.25 mm: spacings of 1 to 2 mm in plane and 1.5 to 3 mm axially (paper)."""
    sizes = np.array([[b.size for b in pair] for pair in pairs(3000, scale=scale)])
    spacing = sizes * np.array(STORED) / np.array(CROP)
    low, high = (np.multiply(SPACING, bound) for bound in scale)
    for box in range(2):
        for axis in range(3):
            # Sizes are whole voxels; half a voxel of noise makes them continuous again.
            step = STORED[axis] / CROP[axis]
            noise = np.random.default_rng(7).uniform(-0.5, 0.5, size=3000) * step
            uniform = stats.uniform(low[axis], high[axis] - low[axis])
            assert stats.kstest(spacing[:, box, axis] + noise, uniform.cdf).pvalue > 1e-3
    six = spacing.reshape(-1, 6)  # both boxes, three axes: all are drawn by themselves
    assert np.abs(np.corrcoef(six.T) - np.eye(6)).max() < 0.07


def test_shared_voxel_is_uniform_over_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    draw_box = crops._draw_box

    def remember(
        generator: np.random.Generator, shared: np.ndarray, *rest: tuple[float, ...]
    ) -> Box:
        box = draw_box(generator, shared, *rest)  # type: ignore[arg-type]
        seen.append(shared)
        assert (np.array(box.start) <= shared).all() and (shared < np.array(box.stop)).all()
        return box

    monkeypatch.setattr(crops, "_draw_box", remember)
    shape = (6, 9, 12)
    pairs(6000, shape, (3.0, 4.0, 5.0))
    first, second = np.array(seen[::2]), np.array(seen[1::2])
    assert (first == second).all()
    counts = np.zeros(shape)
    np.add.at(counts, tuple(first.T), 1)
    assert counts.min() > 0
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_box_is_uniform_among_those_that_hold_the_shared_voxel() -> None:
    """Away from the border, the voxel lies anywhere in its box with the same probability."""
    generator, shared = np.random.default_rng(3), np.array([50, 60, 70])
    offsets = np.array(
        [
            shared
            - crops._draw_box(generator, shared, (200, 200, 200), (8.0, 10.0, 12.0), (1, 1)).start
            for _ in range(4000)
        ]
    )
    for axis, size in enumerate((8, 10, 12)):
        assert stats.chisquare(np.bincount(offsets[:, axis], minlength=size)).pvalue > 1e-3
    assert np.abs(np.corrcoef(offsets.T) - np.eye(3)).max() < 0.06


@pytest.mark.parametrize("min_overlap", [0.25, 0.5])
def test_overlap_is_honoured_per_axis_and_else_left_as_it_falls(min_overlap: float) -> None:
    def shares(boxes: list[tuple[Box, Box]]) -> np.ndarray:
        return np.array(
            [np.array(intersect(*p).size) / np.minimum(p[0].size, p[1].size) for p in boxes]
        )

    free, held = (shares(pairs(2000, min_overlap=m, seed=5)) for m in (0.0, min_overlap))
    assert held.min() >= min_overlap
    # Rejected as a whole: what remains is the free distribution above the bound.
    kept = free[(free >= min_overlap).all(1)]
    assert 0.05 < len(kept) / len(free) < 0.95
    for axis in range(3):
        assert stats.ks_2samp(kept[:, axis], held[:, axis]).pvalue > 1e-3


def test_overlap_that_cannot_be_reached_still_gives_a_pair_that_shares_a_voxel() -> None:
    """Two boxes never overlap by more than all: after so many draws the last one is taken."""
    impossible = pairs(40, min_overlap=1.01)
    assert all(min(intersect(*pair).size) >= 1 for pair in impossible)
    generator = np.random.default_rng(0)
    last = [crops._draw_once(generator, LARGE, COVERED, (2 / 3, 4 / 3)) for _ in range(51)][-1]
    assert impossible[0] == last


def test_positives_are_uniform_over_the_body_of_the_overlap_and_nothing_else() -> None:
    """Half of the overlap is body; no voxel twice, none left out, none preferred."""
    first, second = Box((0, 0, 0), (8, 9, 10)), Box((2, 3, 1), (8, 9, 10))
    body = (torch.rand(8, 9, 10, generator=torch.Generator().manual_seed(0)) < 0.5).byte()
    shared = intersect(first, second)
    window = tuple(slice(a, b) for a, b in zip(shared.start, shared.stop, strict=True))
    candidates = int(body[window].sum())
    generator, draws, count = torch.Generator().manual_seed(1), 1500, 30
    hits = np.zeros(body.shape)
    for _ in range(draws):
        points = draw_positives(body, first, second, count, generator).long()
        assert len(points.unique(dim=0)) == count
        hits[tuple(points.T.numpy())] += 1
    inside = np.zeros(body.shape, bool)
    inside[window] = body[window].numpy() > 0
    assert (hits[~inside] == 0).all() and (hits[inside] > 0).all()
    # Without replacement a voxel's count has the variance n p (1 - p) (N / (N - 1)).
    p = count / candidates
    statistic = ((hits[inside] - draws * p) ** 2).sum() / (draws * p * (1 - p))
    statistic *= (candidates - 1) / candidates
    low, high = stats.chi2(candidates - 1).ppf([1e-3, 1 - 1e-3])
    assert low < statistic < high


def test_masks_hide_sixty_percent_in_nine_of_ten_views_at_random() -> None:
    """The defaults, per view: exactly round(0.6 * 64) blocks, none preferred, views independent."""
    count = 3000
    masks = block_masks(2 * count, (8, 8, 8), MaskSettings(), torch.Generator().manual_seed(2))
    blocks = masks[:, 0, ::2, ::2, ::2].flatten(1).numpy() == 0
    hidden = blocks.sum(1)
    assert set(hidden.tolist()) == {0, round(0.6 * 64)}
    masked = hidden > 0
    assert stats.binomtest(int(masked.sum()), 2 * count, 0.9).pvalue > 1e-3
    both = masked[:count] & masked[count:]  # the two views of a pair
    assert stats.binomtest(int(both.sum()), count, 0.81).pvalue > 1e-3
    hits, fraction, number = blocks[masked].sum(0), 38 / 64, int(masked.sum())
    statistic = ((hits - number * fraction) ** 2).sum() / (number * fraction * (1 - fraction))
    low, high = stats.chi2(63).ppf([1e-3, 1 - 1e-3])
    assert low < statistic * 63 / 64 < high
    first, second = (blocks[:count][masked[:count] & masked[count:]], blocks[count:])
    second = second[masked[:count] & masked[count:]]
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.01


def test_crops_are_upright_unless_a_plan_says_otherwise() -> None:
    settings = ContrastSettings(OptimiserSettings(1, 1, 0))
    assert (settings.flip_probability, settings.rotation_degrees) == (0.0, 0.0)
