from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import numpy as np
import pytest

from screener_nnu.preprocessing.body import _reduce, body_box, body_mask

SPACING = (4.0, 2.0, 2.0)


def trunk(shape: tuple[int, int, int] = (20, 90, 120)) -> tuple[np.ndarray, np.ndarray]:
    """HU without noise, and the true body: an oval with two lungs that go through all slices."""
    _, y, x = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    body = ((x - 60) / 45) ** 2 + ((y - 40) / 28) ** 2 < 1
    image = np.where(body, 40.0, -1000.0).astype(np.float32)
    for centre in (40, 80):
        image[((x - centre) / 12) ** 2 + ((y - 40) / 16) ** 2 < 1] = -850
    return image, body


def test_lungs_are_body_although_they_end_at_the_first_and_last_slice() -> None:
    image, body = trunk()
    np.testing.assert_array_equal(body_mask(image, SPACING), body)


def test_open_airway_does_not_empty_the_lungs() -> None:
    image, body = trunk()
    image[5:15, 40, 40:80] = -1000  # joins the lungs
    image[9, :40, 60] = -1000  # opens them to the front in one slice
    mask = body_mask(image, SPACING)
    others = [z for z in range(20) if z != 9]
    np.testing.assert_array_equal(mask[others], body[others])


def test_table_and_specks_are_not_body() -> None:
    image, body = trunk()
    image[:, 76:78, 5:115] = 100  # a table: two shells and foam between them
    image[:, 86:88, 5:115] = 100
    image[:, 76:88, [5, 6, 113, 114]] = 100
    image[:, 78:86, 7:113] = -900
    image[3:5, 2:5, 2:5] = 1000
    np.testing.assert_array_equal(body_mask(image, SPACING), body)
    box = body_box(image, SPACING, -500.0, 5.0)
    assert box[1].stop <= 74


def test_both_legs_count() -> None:
    shape = (12, 60, 120)
    _, y, x = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    body = ((x - 30) ** 2 + (y - 30) ** 2 < 400) | ((x - 90) ** 2 + (y - 30) ** 2 < 150)
    image = np.where(body, 40.0, -1000.0).astype(np.float32)
    np.testing.assert_array_equal(body_mask(image, SPACING), body)
    box = body_box(image, SPACING, -500.0, 5.0)
    assert box[2].start <= 11 and box[2].stop >= 102


def test_lung_at_a_side_that_cuts_the_chest_stays_body() -> None:
    image, body = trunk()
    image, body = image[:, :, 40:], body[:, :, 40:]
    np.testing.assert_array_equal(body_mask(image, SPACING), body)


def test_box_holds_the_body_and_at_most_a_block_more() -> None:
    image, body = trunk()
    block = [1, 2, 2]
    for axis, cut in enumerate(body_box(image, SPACING, -500.0, 5.0)):
        others = tuple(a for a in range(3) if a != axis)
        hits = np.flatnonzero(body.any(axis=others))
        assert cut.start <= hits[0] and cut.stop > hits[-1]
        assert hits[0] - cut.start <= 2 * block[axis]
        assert cut.stop - 1 - hits[-1] <= 2 * block[axis]


def test_box_falls_back_to_all_dense_voxels() -> None:
    image = np.full((10, 20, 30), -1000.0, dtype=np.float32)
    image[4, 7:9, 11] = 50
    image[6, 5, 13] = 50
    box = body_box(image, (1.0, 1.0, 1.0), -500.0, 5.0)
    assert box == (slice(4, 7), slice(5, 9), slice(11, 14))
    image[:] = -1000
    assert body_box(image, (1.0, 1.0, 1.0), -500.0, 5.0) == (
        slice(0, 10),
        slice(0, 20),
        slice(0, 30),
    )
    assert not body_mask(image, (1.0, 1.0, 1.0)).any()


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 9, 9), (3, 40, 2)])
def test_tiny_images(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 40.0, dtype=np.float32)
    assert body_mask(image, SPACING).all()
    assert image[body_box(image, SPACING, -500.0, 5.0)].shape == shape


def test_noise_does_not_pierce_the_body(person: Callable[..., np.ndarray]) -> None:
    image = person((16, 100, 120))
    mask = body_mask(image, SPACING)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in image.shape], indexing="ij")
    body = (x / 0.8) ** 2 + (y / 0.7) ** 2 < 1
    assert (mask == body).mean() > 0.9999


def test_specks_in_the_air_are_no_body() -> None:
    """Each cell of the coarse grid is nearly empty: there is nothing to tell apart."""
    image = np.full((12, 40, 40), -1000, np.float32)
    image[6, 10, 10] = image[6, 30, 20] = 50
    assert not body_mask(image, (4.0, 1.0, 1.0)).any()


@pytest.mark.parametrize("block", [(3, 4, 5), (1, 6, 1), (7, 1, 20), (1, 1, 1)])
def test_blocks_equal_a_loop(block: tuple[int, int, int]) -> None:
    array = np.random.default_rng(0).integers(-9, 9, (13, 17, 19))
    counts = [-(-n // edge) for n, edge in zip(array.shape, block, strict=True)]
    for function in (np.minimum, np.add):
        wanted = np.empty(counts, int)
        for place in np.ndindex(*counts):
            part = array[
                tuple(slice(i * e, (i + 1) * e) for i, e in zip(place, block, strict=True))
            ]
            wanted[place] = function.reduce(part, axis=None)
        np.testing.assert_array_equal(_reduce(function, array, list(block)), wanted)


# Box, voxels of the mask and their checksum, of a second program, written on SimpleITK.
ODD_BODIES = [
    ([(0, 27), (0, 20), (10, 36)], 10105, 1174077402),
    ([(0, 34), (0, 36), (0, 48)], 20124, 780487996),
    ([(0, 52), (0, 24), (3, 17)], 5054, 2219989030),
    ([(0, 50), (0, 16), (0, 15)], 4008, 3305642275),
    ([(0, 46), (0, 57), (0, 54)], 15159, 257829493),
    ([(0, 44), (0, 50), (0, 13)], 3451, 2985167699),
    ([(0, 33), (0, 28), (0, 36)], 7826, 3224153633),
    ([(5, 57), (1, 30), (0, 41)], 12911, 556344324),
    ([(0, 46), (1, 27), (0, 23)], 2958, 1406595609),
    ([(0, 32), (16, 53), (1, 58)], 29478, 2956931382),
    ([(0, 49), (0, 57), (1, 24)], 14279, 3469581809),
    ([(0, 18), (0, 18), (0, 49)], 2629, 98887645),
]


@pytest.mark.parametrize("seed", range(12))
def test_odd_shapes(seed: int) -> None:
    """Blobs, holes, specks and a shell, unlike any person."""
    rng = np.random.default_rng(seed)
    spacing = tuple(np.random.default_rng(seed).uniform(0.8, 6, 3).tolist())
    shape = tuple(rng.integers(12, 60, 3))
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    hu = np.full(shape, -1000.0)
    for value in (40, 60, -850, 30, -900):
        centre, radius = rng.uniform(-1, 1, 3), rng.uniform(0.2, 1.0, 3)
        distance = sum(
            ((a - c) / r) ** 2 for a, c, r in zip((z, y, x), centre, radius, strict=True)
        )
        hu[distance < 1] = value
    hu[:, -3:-1, 2:-2] = 100
    hu[rng.random(shape) < 0.01] = 300
    hu = (hu + rng.normal(0, 30, shape)).astype(np.float32)
    box = [(side.start, side.stop) for side in body_box(hu, spacing, -500.0, 5.0)]
    mask = body_mask(hu, spacing, -500.0)
    found = (box, np.count_nonzero(mask), crc32(np.packbits(mask).tobytes()))
    assert found == ODD_BODIES[seed]
