"""Crop pairs and their voxels against coordinate images, SciPy and the arithmetic of boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from screener_nnu.sampling.crops import (
    Box,
    draw_pair,
    draw_positives,
    intersect,
    resize_boxes,
    sample_features,
    to_crop,
    voxels_per_crop,
)

torch.set_num_threads(1)
VOLUME = (40, 52, 61)
CROP = (16, 24, 20)
WIDE = (2 / 3, 4 / 3)


def pairs(
    count: int,
    shape: tuple[int, int, int],
    covered: tuple[float, float, float],
    scale: tuple[float, float] = WIDE,
    min_overlap: float = 0.0,
    seed: int = 0,
) -> list[tuple[Box, Box]]:
    generator = np.random.default_rng(seed)
    return [draw_pair(generator, shape, covered, scale, min_overlap) for _ in range(count)]


def read_box(volume: np.ndarray, box: Box, fill: float = 0.0) -> torch.Tensor:
    """The box of a volume, voxel by voxel, `fill` where it leaves the volume."""
    result = np.full(box.size, fill, dtype=np.float32)
    for index in np.ndindex(*box.size):
        place = tuple(a + i for a, i in zip(box.start, index, strict=True))
        if all(0 <= p < n for p, n in zip(place, volume.shape, strict=True)):
            result[index] = volume[place]
    return torch.from_numpy(result)


def inside(box: Box) -> np.ndarray:
    """Voxels of the volume that lie in a box."""
    place = np.moveaxis(np.indices(VOLUME), 0, -1)
    return ((place >= box.start) & (place < box.stop)).all(-1)


def torch_seed(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_positives_hold_the_same_coordinate_in_both_crops(axis: int) -> None:
    """A voxel's value is its own coordinate, so a match must read the same value twice."""
    coordinate = np.indices(VOLUME)[axis].astype(np.float32)
    checked = 0
    for number, boxes in enumerate(pairs(12, VOLUME, (18.0, 22.0, 25.0), seed=axis)):
        shared = intersect(*boxes)
        body = torch.ones(boxes[0].size)
        points = draw_positives(body, *boxes, 300, torch_seed(number))
        assert len(points) == min(300, int(np.prod(shared.size)))
        inner = torch.ones(len(points), dtype=torch.bool)
        values = []
        for box in boxes:
            start, stop = box.start, box.stop
            region = coordinate[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
            crop = resize_boxes([torch.from_numpy(region.copy())], CROP)
            at = to_crop(points, box, CROP)
            # Linear interpolation of a ramp is exact, except half a voxel from the border where
            # the ramp ends: there `resize` and `sample` both keep the last value.
            inner &= (at[:, axis] >= 0.5) & (at[:, axis] <= CROP[axis] - 1.5)
            first = (box.size[axis] / CROP[axis] - 1) / 2
            inner &= (points[:, axis] - start[axis] >= first) & (
                stop[axis] - 1 - points[:, axis] >= first
            )
            values.append(sample_features(crop[0], at)[:, 0])
        for value in values:
            torch.testing.assert_close(value[inner], points[inner, axis], rtol=0, atol=2e-4)
        checked += int(inner.sum())
    assert checked > 500


def test_resize_places_voxel_centres_as_to_crop_says() -> None:
    """Box voxel p lies at (p - start + 0.5) * crop / size - 0.5 of the crop."""
    box = Box((3, -2, 5), (7, 10, 24))
    inverse = [
        (np.arange(c) + 0.5) * n / c - 0.5 + a
        for a, n, c in zip(box.start, box.size, CROP, strict=True)
    ]
    points = torch.tensor(np.stack(np.meshgrid(*inverse, indexing="ij"), -1)).reshape(-1, 3)
    expected = np.stack(np.meshgrid(*map(np.arange, CROP), indexing="ij"), -1).reshape(-1, 3)
    np.testing.assert_allclose(to_crop(points, box, CROP).numpy(), expected, atol=1e-9)


def test_resize_is_linear_interpolation_at_half_pixel_centres() -> None:
    image = np.random.default_rng(0).normal(size=(7, 10, 24)).astype(np.float32)
    where = [(np.arange(c) + 0.5) * n / c - 0.5 for n, c in zip(image.shape, CROP, strict=True)]
    grid = np.meshgrid(*where, indexing="ij")
    expected = ndimage.map_coordinates(image, grid, order=1, mode="nearest")
    result = resize_boxes([torch.from_numpy(image)], CROP)
    assert result.shape == (1, 1, *CROP)
    np.testing.assert_allclose(result[0, 0].numpy(), expected, atol=1e-5)


def test_resize_keeps_a_box_of_the_crop_size_and_takes_boxes_of_any_size() -> None:
    boxes = [torch.randn(CROP, generator=torch_seed(1)), torch.full((3, 5, 9), 2.5).half()]
    result = resize_boxes(boxes, CROP)
    assert result.shape == (2, 1, *CROP) and result.dtype == torch.float32
    torch.testing.assert_close(result[0, 0], boxes[0])
    torch.testing.assert_close(result[1, 0], torch.full(CROP, 2.5))


@pytest.mark.parametrize("shape", [(5, 6, 7), (9, 4, 6)])
def test_sample_features_equals_map_coordinates(shape: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(2)
    features = generator.normal(size=(3, *shape)).astype(np.float32)
    # Outside as well: the border value goes on.
    points = generator.uniform(-1.5, np.array(shape) + 0.5, size=(200, 3)).astype(np.float32)
    expected = [
        ndimage.map_coordinates(channel, points.T, order=1, mode="nearest") for channel in features
    ]
    result = sample_features(torch.from_numpy(features), torch.from_numpy(points))
    assert result.shape == (200, 3)
    np.testing.assert_allclose(result.numpy(), np.stack(expected, 1), atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 8, 9)])
def test_features_that_are_read_deterministically_are_the_same(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(3, *shape, generator=generator)
    spread = torch.tensor(shape) + 2.0
    points = torch.rand(200, 3, generator=generator) * spread - 1.5  # some lie beyond the border
    points[:6] = points[:6].round()
    weights = torch.randn(200, 3, generator=generator)
    results = []
    for steady in (False, True):
        torch.use_deterministic_algorithms(steady)
        try:
            given = features.clone().requires_grad_()
            values = sample_features(given, points)
            (values * weights).sum().backward()
        finally:
            torch.use_deterministic_algorithms(False)
        results.append((values.detach(), given.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_sample_features_passes_gradients_to_the_voxels_around() -> None:
    features = torch.zeros(1, 4, 4, 4, requires_grad=True)
    sample_features(features, torch.tensor([[1.25, 2.0, 3.0]])).sum().backward()
    expected = torch.zeros(1, 4, 4, 4)
    expected[0, 1, 2, 3], expected[0, 2, 2, 3] = 0.75, 0.25
    torch.testing.assert_close(features.grad, expected, rtol=0, atol=1e-5)


def test_positives_lie_in_both_boxes_and_in_the_body() -> None:
    body = np.random.default_rng(3).random(VOLUME) < 0.3
    for number, (first, second) in enumerate(pairs(20, VOLUME, (15.0, 20.0, 22.0), seed=3)):
        window = tuple(slice(a, b) for a, b in zip(first.start, first.stop, strict=True))
        local = torch.from_numpy(body[window].astype(np.uint8))
        points = draw_positives(local, first, second, 10**6, torch_seed(number)).numpy().astype(int)
        # All of them, each once: the body voxels of the overlap.
        wanted = body & inside(first) & inside(second)
        assert len(points) == wanted.sum()
        assert set(map(tuple, points)) == set(map(tuple, np.argwhere(wanted)))


def test_positives_are_drawn_without_replacement_and_uniformly() -> None:
    first, second = Box((2, 3, 4), (6, 5, 6)), Box((4, 1, 5), (6, 6, 9))
    candidates = int(np.prod(intersect(first, second).size))
    body, generator = torch.ones(first.size), torch_seed(5)
    draws, count = 2000, 20
    hits = np.zeros((20, 20, 20))
    for _ in range(draws):
        points = draw_positives(body, first, second, count, generator).long().numpy()
        assert len(np.unique(points, axis=0)) == count
        hits[tuple(points.T)] += 1
    share = hits[hits > 0] / draws
    assert len(share) == candidates
    expected = count / candidates
    sigma = np.sqrt(expected * (1 - expected) / draws)
    assert np.abs(share - expected).max() < 5 * sigma


def test_no_positives_without_body_or_overlap() -> None:
    first = Box((0, 0, 0), (4, 4, 4))
    assert draw_positives(torch.zeros(4, 4, 4), first, first, 9, torch_seed(0)).shape == (0, 3)
    apart = Box((4, 0, 0), (4, 4, 4))
    none = draw_positives(torch.ones(4, 4, 4), first, apart, 9, torch_seed(0))
    assert none.shape == (0, 3) and none.dtype == torch.float32


def test_boxes_share_a_voxel_and_stay_in_a_volume_that_holds_them() -> None:
    for first, second in pairs(500, VOLUME, (14.0, 20.0, 30.0)):
        assert min(intersect(first, second).size) >= 1
        for box in (first, second):
            assert min(box.start) >= 0
            assert all(b <= n for b, n in zip(box.stop, VOLUME, strict=True))


def test_shared_voxel_covers_the_whole_volume_evenly() -> None:
    """Boxes of one place each would pass all other tests: places must spread over the volume."""
    size = np.array((10.0, 10.0, 10.0))
    starts = np.array(
        [b.start for p in pairs(3000, (40, 40, 40), tuple(size), (1.0, 1.0)) for b in p]
    )
    assert (starts.min(0) == 0).all() and (starts.max(0) == 30).all()
    np.testing.assert_allclose(starts.mean(0), 15.0, atol=0.6)
    # Every voxel must be seen about as often as its neighbours in the middle of the volume.
    middle = np.stack([(starts >= a) & (starts < a + 5) for a in (5, 10, 15, 20)]).mean(1)
    assert np.abs(middle / middle.mean(0) - 1).max() < 0.15


def test_box_sizes_are_uniform_over_the_scale_range() -> None:
    covered, scale = (60.0, 90.0, 45.0), (0.5, 1.5)
    sizes = np.array([b.size for p in pairs(2000, (500, 500, 500), covered, scale) for b in p])
    relative = sizes / np.array(covered)
    assert relative.min() >= 0.5 - 0.5 / 45 and relative.max() <= 1.5 + 0.5 / 45
    assert (relative.min(0) < 0.52).all() and (relative.max(0) > 1.48).all()
    sigma = np.sqrt(1 / 12 / len(sizes))
    np.testing.assert_allclose(relative.mean(0), 1.0, atol=5 * sigma)
    np.testing.assert_allclose(relative.std(0), np.sqrt(1 / 12), atol=0.01)
    # Per axis and per box: drawing one factor for all would tie them.
    assert np.abs(np.corrcoef(relative.T) - np.eye(3)).max() < 0.06
    assert abs(np.corrcoef(relative[::2, 0], relative[1::2, 0])[0, 1]) < 0.08


def test_box_is_cut_to_the_volume_but_not_below_the_smallest_scale() -> None:
    shape = (12, 30, 100)
    sizes = np.array([b.size for p in pairs(400, shape, (24.0, 30.0, 30.0)) for b in p])
    assert (sizes[:, 0] == 16).all()  # 2/3 of 24 exceeds the 12 that are there
    assert sizes[:, 1].min() >= 20 and sizes[:, 1].max() == 30
    assert sizes[:, 2].max() == 40


def test_boxes_larger_than_the_volume_hold_all_of_it_at_random_places() -> None:
    shape, covered = (10, 12, 40), (30.0, 36.0, 12.0)
    starts = []
    for pair in pairs(300, shape, covered, (1.0, 1.0)):
        assert min(intersect(*pair).size) >= 1
        for box in pair:
            assert box.size == (30, 36, 12)
            assert max(box.start[:2]) <= 0
            assert box.stop[0] >= 10 and box.stop[1] >= 12
            assert 0 <= box.start[2] <= 28
            starts.append(box.start)
    assert {s[0] for s in starts} == set(range(-20, 1))
    assert {s[1] for s in starts} == set(range(-24, 1))


def test_volume_smaller_than_a_crop_still_gives_matching_values() -> None:
    shape, axis = (10, 12, 14), 2
    coordinate = np.indices(shape)[axis].astype(np.float32)
    for number, boxes in enumerate(pairs(4, shape, (24.0, 24.0, 24.0), (1.0, 1.0), seed=9)):
        inside = [read_box(np.ones(shape), box) for box in boxes]
        points = draw_positives(inside[0], *boxes, 64, torch_seed(number))
        assert len(points) == 64
        assert (points >= 0).all() and (points < torch.tensor(shape)).all()
        for box in boxes:
            crop = resize_boxes([read_box(coordinate, box)], box.size)
            value = sample_features(crop[0], to_crop(points, box, box.size))[:, 0]
            torch.testing.assert_close(value, points[:, axis], rtol=0, atol=1e-4)


@pytest.mark.parametrize("min_overlap", [0.25, 0.6])
def test_min_overlap_is_reached(min_overlap: float) -> None:
    def least(pair: tuple[Box, Box]) -> float:
        smaller = np.minimum(pair[0].size, pair[1].size)
        return float((np.array(intersect(*pair).size) / smaller).min())

    free = [least(p) for p in pairs(300, VOLUME, (14.0, 16.0, 18.0))]
    held = [least(p) for p in pairs(300, VOLUME, (14.0, 16.0, 18.0), min_overlap=min_overlap)]
    assert np.mean(np.array(free) < min_overlap) > 0.05
    assert min(held) >= min_overlap


def test_unreachable_overlap_does_not_hang() -> None:
    (pair,) = pairs(1, VOLUME, (14.0, 16.0, 18.0), (0.5, 1.5), min_overlap=1.5)
    assert min(intersect(*pair).size) >= 1


def test_voxels_per_crop_are_those_of_the_crop_in_mm() -> None:
    covered = voxels_per_crop((64, 96, 96), (2.25, 1.5, 1.4), (1.5, 1.0, 0.7))
    np.testing.assert_allclose(covered, (64 * 1.5, 96 * 1.5, 96 * 2.0))


def test_intersection_is_symmetric_and_empty_apart() -> None:
    a, b = Box((0, 2, 4), (5, 5, 5)), Box((3, 0, 8), (9, 4, 9))
    assert intersect(a, b) == intersect(b, a) == Box((3, 2, 8), (2, 2, 1))
    assert min(intersect(a, Box((5, 2, 4), (3, 3, 3))).size) == 0


@pytest.mark.parametrize("scale", [WIDE, (2 / 3, 8 / 3)])
def test_crops_of_a_picture_have_its_slice(scale: tuple[float, float]) -> None:
    for first, second in pairs(200, (1, 52, 61), (1, 24, 20), scale):
        shared = intersect(first, second)
        for box in (first, second, shared):
            assert (box.start[0], box.size[0]) == (0, 1)
        assert min(shared.size) > 0
        assert all(n >= round(2 / 3 * m) for n, m in zip(first.size[1:], (24, 20), strict=True))


def test_positives_of_a_picture_hold_the_same_place_in_both_crops() -> None:
    shape, crop = (1, 52, 61), (1, 24, 20)
    ramp = np.broadcast_to(np.arange(61, dtype=np.float32), shape)
    (pair,) = pairs(1, shape, crop, seed=3)
    body = torch.ones(pair[0].size, dtype=torch.bool)
    points = draw_positives(body, *pair, 40, torch_seed(0))
    assert len(points) > 5 and (points[:, 0] == 0).all()
    values = [
        sample_features(resize_boxes([read_box(ramp, box)], crop)[0], to_crop(points, box, crop))
        for box in pair
    ]
    for found in values:
        inner = (points[:, 2] > max(b.start[2] for b in pair) + 1) & (
            points[:, 2] < min(b.stop[2] for b in pair) - 2
        )
        np.testing.assert_allclose(found[inner, 0], points[inner, 2], atol=0.05)


def test_colours_are_resized_each_by_itself() -> None:
    boxes = [torch.rand(3, 1, n, 17, generator=torch_seed(n)) for n in (9, 22)]
    found = resize_boxes(boxes, (1, 12, 14))
    assert found.shape == (2, 3, 1, 12, 14)
    for c in range(3):
        alone = resize_boxes([box[c] for box in boxes], (1, 12, 14))
        torch.testing.assert_close(found[:, c : c + 1], alone)
