"""Surface Dice against a search over all pairs of boundary voxels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from screener_nnu.lowshot.surface import normalised_surface_dice

SPACING = (3.0, 0.8, 1.1)
FACES = [tuple(s if a == axis else 0 for a in range(3)) for axis in range(3) for s in (-1, 1)]


def boundary(mask: np.ndarray) -> list[tuple[int, ...]]:
    found = []
    for voxel in zip(*np.nonzero(mask), strict=True):
        neighbours = [tuple(int(v) + o for v, o in zip(voxel, face, strict=True)) for face in FACES]
        inside = [
            all(0 <= p < n for p, n in zip(place, mask.shape, strict=True)) and bool(mask[place])
            for place in neighbours
        ]
        if not all(inside):
            found.append(tuple(int(v) for v in voxel))
    return found


def brute_force(first: np.ndarray, second: np.ndarray, tolerance: float) -> float:
    surfaces = boundary(first), boundary(second)
    if not surfaces[0] and not surfaces[1]:
        return math.nan
    near = 0
    for own, other in (surfaces, surfaces[::-1]):
        for a in own:
            lengths = [math.dist(np.multiply(a, SPACING), np.multiply(b, SPACING)) for b in other]
            near += bool(lengths) and min(lengths) <= tolerance + 1e-9
    return near / (len(surfaces[0]) + len(surfaces[1]))


def blob(rng: np.random.Generator) -> np.ndarray:
    """A few overlapping boxes, some of them at the edge of the image."""
    mask = np.zeros((6, 11, 9), bool)
    for _ in range(rng.integers(1, 4)):
        start = [int(rng.integers(0, n - 2)) for n in mask.shape]
        mask[tuple(slice(s, s + int(rng.integers(2, 6))) for s in start)] = True
    return mask


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("tolerance", [0.0, 0.8, 1.5, 3.0])
def test_equals_a_search_over_all_pairs(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    first, second = blob(rng), blob(rng)
    found = normalised_surface_dice(first, second, SPACING, tolerance)
    assert found == pytest.approx(brute_force(first, second, tolerance), abs=1e-12)
    assert found == normalised_surface_dice(second, first, SPACING, tolerance)


def test_a_shift_counts_from_its_length_on() -> None:
    mask = np.zeros((5, 20, 20), bool)
    mask[2, 5:15, 5:15] = True
    for axis, step in itertools.product(range(3), (1, 2)):
        length = step * SPACING[axis]
        moved = np.roll(mask, step, axis)
        assert normalised_surface_dice(mask, moved, SPACING, length) == 1.0
        assert normalised_surface_dice(mask, moved, SPACING, length - 0.01) < 1.0


def test_empty_masks() -> None:
    empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    assert math.isnan(normalised_surface_dice(empty, empty, SPACING, 2))
    assert normalised_surface_dice(empty, full, SPACING, 2) == 0.0
    assert normalised_surface_dice(full, empty, SPACING, 2) == 0.0


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes"):
        normalised_surface_dice(np.ones((2, 2, 2)), np.ones((2, 2, 3)), SPACING, 2)
