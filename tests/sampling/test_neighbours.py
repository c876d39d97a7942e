"""Pairs of patches: their labels say where the second one lies, and nothing leaves the image."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.sampling.neighbours import (
    DIRECTIONS_2D,
    DIRECTIONS_3D,
    Neighbours,
    directions_of,
    draw_neighbours,
)

Shape = tuple[int, int, int]
CASES = [((1, 90, 120), 32), ((40, 50, 60), 16), ((1, 64, 57), 32), ((9, 9, 9), 5)]


def patch_shape(shape: Shape, edge: int) -> Shape:
    return 1 if shape[0] == 1 else edge, edge, edge


def draws(shape: Shape, edge: int, count: int = 500) -> list[Neighbours]:
    generator = np.random.default_rng(3)
    return [draw_neighbours(generator, shape, patch_shape(shape, edge)) for _ in range(count)]


def test_the_tables() -> None:
    """Written out by hand: up, down, left and right must not be exchanged between versions."""
    assert DIRECTIONS_2D == (
        (0, -1, -1), (0, -1, 0), (0, -1, 1), (0, 0, -1), (0, 0, 1), (0, 1, -1), (0, 1, 0), (0, 1, 1)
    )  # fmt: skip
    assert len(set(DIRECTIONS_3D)) == 6
    assert all(sorted(map(abs, step)) == [0, 0, 1] for step in DIRECTIONS_3D)
    assert directions_of((1, 5, 5)) is DIRECTIONS_2D and directions_of((2, 5, 5)) is DIRECTIONS_3D


@pytest.mark.parametrize("shape, edge", CASES)
def test_labels_say_where_the_second_patch_lies(shape: Shape, edge: int) -> None:
    """Seen in an image of coordinates, as what is cut out of it."""
    grid = np.stack(np.indices(shape))
    patch = patch_shape(shape, edge)
    for first, second, label in draws(shape, edge):
        cut = [
            grid[(slice(None), *(slice(a, a + k) for a, k in zip(at, patch, strict=True)))]
            for at in (first, second)
        ]
        assert all(part.shape[1:] == patch for part in cut)  # inside, or it would be smaller
        moved = cut[1].mean(axis=(1, 2, 3)) - cut[0].mean(axis=(1, 2, 3))
        for way, offset in zip(directions_of(shape)[label], moved, strict=True):
            assert np.sign(offset) == way
            assert not way or 0.75 * edge <= abs(offset) <= edge - 1


@pytest.mark.parametrize("shape, edge", CASES)
def test_all_labels_occur_as_often(shape: Shape, edge: int) -> None:
    labels = Counter(pair.direction for pair in draws(shape, edge, 2000))
    number = len(directions_of(shape))
    assert set(labels) == set(range(number))
    expected = 2000 / number
    assert all(abs(count - expected) < 4 * expected**0.5 for count in labels.values())


def test_all_offsets_and_places_occur() -> None:
    found = draws((1, 70, 64), 32, 6000)
    right = [pair for pair in found if DIRECTIONS_2D[pair.direction] == (0, 0, 1)]
    offsets = Counter(pair.second[2] - pair.first[2] for pair in right)
    assert set(offsets) == set(range(24, 32))
    assert min(offsets.values()) > 0.5 * max(offsets.values())
    # Along the other axis wherever a patch fits, and along its own wherever both do.
    assert {pair.first[1] for pair in right} == set(range(70 - 32 + 1))
    assert {pair.first[2] for pair in right if pair.second[2] - pair.first[2] == 24} == set(
        range(9)
    )


def test_only_directions_that_there_is_room_for() -> None:
    """Rows enough for one patch, columns for two."""
    labels = {DIRECTIONS_2D[pair.direction] for pair in draws((1, 40, 200), 32)}
    assert labels == {(0, 0, -1), (0, 0, 1)}
    # Room for the shortest offset alone.
    for first, second, _ in draws((1, 32, 56), 32, 50):
        assert {first[2], second[2]} == {0, 24} and first[1] == second[1] == 0
    assert {DIRECTIONS_3D[p.direction] for p in draws((8, 8, 14), 8)} == {(0, 0, -1), (0, 0, 1)}


@pytest.mark.parametrize(
    "shape, edge, message",
    [
        ((1, 55, 55), 32, "1 x 55 x 55 .* patches of 1 x 32 x 32 "),
        ((1, 31, 200), 32, "1 x 31 x 200 .* patches of 1 x 32 x 32 "),
        ((8, 13, 13), 8, "8 x 13 x 13 .* patches of 8 x 8 x 8 "),
        ((7, 90, 90), 8, "7 x 90 x 90"),
        ((1, 90, 90), 3, "patches of 1 x 3 x 3 voxels .* choose 4 or more"),
    ],
)
def test_too_small_images_are_refused(shape: Shape, edge: int, message: str) -> None:
    with pytest.raises(ScreenerError, match=f"{message}.*pretext.patch"):
        draw_neighbours(np.random.default_rng(0), shape, patch_shape(shape, edge))


def test_the_same_generator_draws_the_same() -> None:
    assert draws((30, 40, 50), 12) == draws((30, 40, 50), 12)
