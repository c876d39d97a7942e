"""Mirrored and turned crops: what a voxel shows, where it is found, and how often it is turned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from screener_nnu.sampling.crops import (
    Box,
    draw_pair,
    draw_positives,
    resize_boxes,
    sample_features,
    to_crop,
)
from screener_nnu.sampling.orientation import (
    draw_orientations,
    match_oriented,
    resize_oriented,
    to_oriented_crop,
)

torch.set_num_threads(1)
VOLUME = (60, 72, 81)
CROP = (16, 24, 20)
SPACING = (3.0, 1.0, 1.5)
UPRIGHT = torch.eye(3)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turned(degrees: float, *mirrored: int) -> torch.Tensor:
    """An orientation written out by hand."""
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    signs = [-1.0 if axis in mirrored else 1.0 for axis in range(3)]
    return torch.tensor(turn @ np.diag(signs), dtype=torch.float32)


def coordinates(box: Box) -> list[torch.Tensor]:
    """Images of a box whose values are the stored coordinates (z, y, x) of its voxels."""
    axes = [np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    return [torch.from_numpy(axis.astype(np.float32)) for axis in grid]


@pytest.mark.parametrize(
    ("flips", "degrees"), [(0.0, 0.0), (0.5, 0.0), (0.0, 15.0), (0.5, 15.0), (0.5, 180.0)]
)
def test_matched_points_show_the_same_coordinates_in_both_crops(
    flips: float, degrees: float
) -> None:
    """An image of coordinates, read at matched points of both crops, gives the voxel each time."""
    generator, checked = np.random.default_rng(1), 0
    for number in range(10):
        boxes = draw_pair(generator, VOLUME, (22.0, 40.0, 34.0), (2 / 3, 4 / 3))
        body = torch.ones(boxes[0].size)
        voxels = draw_positives(body, *boxes, 10**6, seeded(number))
        orientations = draw_orientations(2, flips, degrees, seeded(100 + number))
        *points, used = match_oriented(voxels, boxes, CROP, orientations, SPACING)
        assert len(points[0]) == len(points[1]) > 0
        shown, clear = [], torch.ones(len(points[0]), dtype=torch.bool)
        for box, at, orientation in zip(boxes, points, used, strict=True):
            # The ramp of coordinates ends at the border voxels of box and crop: leave those out.
            inner = torch.zeros(box.size)
            inner[1:-1, 1:-1, 1:-1] = 1
            images = [*coordinates(box), inner]
            turned_images = resize_oriented(images, CROP, orientation.expand(4, 3, 3), SPACING)
            values = sample_features(turned_images[:, 0], at)
            clear &= values[:, 3] > 1 - 1e-5
            clear &= ((at >= 0) & (at <= torch.tensor(CROP) - 1)).all(1)
            shown.append(values[:, :3])
        torch.testing.assert_close(shown[0][clear], shown[1][clear], rtol=0, atol=1e-3)
        for place in shown[0][clear][:20]:  # and it is one of the voxels that were drawn
            assert (place - voxels).abs().amax(1).min() < 1e-3
        checked += int(clear.sum())
    assert checked > 300


@pytest.mark.parametrize(
    "orientation", [UPRIGHT, turned(0, 0), turned(0, 1, 2), turned(0, 0, 1, 2)]
)
def test_mirrored_crops_are_mirrored_resized_boxes(orientation: torch.Tensor) -> None:
    image = torch.randn(13, 31, 22, generator=seeded(0))
    axes = [2 + axis for axis in range(3) if orientation[axis, axis] < 0]
    found = resize_oriented([image], CROP, orientation[None], SPACING)
    torch.testing.assert_close(found, resize_boxes([image], CROP).flip(axes), rtol=0, atol=1e-4)
    points = torch.tensor(CROP) * torch.rand(50, 3, generator=seeded(1))
    box = Box((4, -3, 7), (13, 31, 22))
    plain = to_crop(points, box, CROP)
    for axis in axes:
        plain[:, axis - 2] = CROP[axis - 2] - 1 - plain[:, axis - 2]
    mapped = to_oriented_crop(points, box, CROP, orientation, SPACING)
    torch.testing.assert_close(mapped, plain, rtol=0, atol=1e-4)


@pytest.mark.parametrize("orientation", [turned(20), turned(-35, 2), turned(90, 0)])
def test_turned_crop_equals_scipy_and_is_air_beyond_the_box(orientation: torch.Tensor) -> None:
    """Crop voxel -> mm about the centre -> turned -> voxel of the box, written out in NumPy."""
    image = np.random.default_rng(2).uniform(1, 2, size=(13, 31, 22)).astype(np.float32)
    size, spacing = np.array(image.shape), np.array(SPACING)
    place = np.stack(np.meshgrid(*map(np.arange, CROP), indexing="ij"), -1)
    offset = ((place + 0.5) / CROP - 0.5) * size * spacing
    box = offset @ orientation.numpy().T.astype(float) / spacing + size / 2 - 0.5
    expected = ndimage.map_coordinates(image, np.moveaxis(box, -1, 0), order=1, mode="nearest")
    beyond = ((box < -0.5) | (box > size - 0.5)).any(-1)
    assert 0.02 < beyond.mean() < 0.8
    found = resize_oriented([torch.from_numpy(image)], CROP, orientation[None], SPACING)[0, 0]
    clear = np.abs(box + 0.5 - np.clip(np.rint((box + 0.5) / size), 0, 1) * size).min(-1) > 1e-3
    np.testing.assert_allclose(
        found.numpy()[clear], np.where(beyond, 0, expected)[clear], atol=1e-3
    )


def test_a_ball_stays_a_ball_on_anisotropic_voxels() -> None:
    """Turned in mm: turning in voxels would shear what is as long in mm as in voxels it is not."""
    place = np.stack(np.meshgrid(*map(np.arange, (20, 60, 40)), indexing="ij"), -1)
    middle = (np.array((20, 60, 40)) - 1) / 2
    radius = np.linalg.norm((place - middle) * SPACING, axis=-1)
    ball = torch.from_numpy(np.clip(20 - radius, 0, 1).astype(np.float32))
    plain = resize_oriented([ball], (20, 60, 40), UPRIGHT[None], SPACING)
    found = resize_oriented([ball], (20, 60, 40), turned(40)[None], SPACING)
    assert float((found - plain).abs().mean()) < 0.05 * float(plain.mean())


def test_points_that_leave_one_crop_are_dropped_in_both() -> None:
    boxes = (Box((0, 0, 0), (20, 40, 40)), Box((0, 20, 20), (20, 40, 40)))
    voxels = draw_positives(torch.ones(20, 40, 40), *boxes, 10**6, seeded(0))
    pair = torch.stack([turned(45), UPRIGHT])
    first, second, used = match_oriented(voxels, boxes, CROP, pair, (1.0, 1.0, 1.0))
    assert torch.equal(used, pair)
    mapped = to_oriented_crop(voxels, boxes[0], CROP, pair[0], (1.0, 1.0, 1.0))
    inside = ((mapped >= -0.5) & (mapped <= torch.tensor(CROP) - 0.5)).all(1)
    # The overlap is a quarter of the first box; turned by 45 degrees, its far corner is cut off.
    assert 0.5 < float(inside.float().mean()) < 0.9
    assert abs(len(first) - int(inside.sum())) <= 2 and len(first) == len(second)
    kept = {tuple(p) for p in first.round(decimals=2).tolist()}
    assert kept >= {tuple(p) for p in mapped[inside].round(decimals=2).tolist()}


def test_a_pair_that_would_share_nothing_is_left_upright() -> None:
    boxes = (Box((0, 0, 0), (20, 40, 40)), Box((0, 36, 36), (20, 40, 40)))
    voxels = draw_positives(torch.ones(20, 40, 40), *boxes, 10**6, seeded(0))
    pair = torch.stack([turned(45), turned(45)])
    first, second, used = match_oriented(voxels, boxes, CROP, pair, (1.0, 1.0, 1.0))
    assert torch.equal(used, UPRIGHT.repeat(2, 1, 1))
    assert len(first) == len(voxels)
    torch.testing.assert_close(first, to_crop(voxels, boxes[0], CROP), rtol=0, atol=1e-4)
    torch.testing.assert_close(second, to_crop(voxels, boxes[1], CROP), rtol=0, atol=1e-4)
    none = match_oriented(voxels[:0], boxes, CROP, pair, (1.0, 1.0, 1.0))
    assert none[0].shape == none[1].shape == (0, 3)


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_each_axis_of_each_crop_is_mirrored_with_the_probability(probability: float) -> None:
    count = 4000
    mirrored = (draw_orientations(count, probability, 0.0, seeded(3)).diagonal(0, 1, 2) < 0).numpy()
    spread = np.sqrt(probability * (1 - probability) / count)
    assert np.abs(mirrored.mean(0) - probability).max() <= 4 * spread
    if 0 < probability < 1:
        joined = np.concatenate([mirrored[::2], mirrored[1::2]], axis=1)  # axes of a pair of crops
        assert np.abs(np.corrcoef(joined.T) - np.eye(6)).max() < 0.1


def test_angles_are_uniform_in_plane_and_independent_of_mirroring() -> None:
    matrices = draw_orientations(4000, 0.5, 30.0, seeded(4))
    identity = matrices @ matrices.transpose(1, 2)
    torch.testing.assert_close(identity, UPRIGHT.expand_as(identity), rtol=0, atol=1e-5)
    assert (matrices[:, 0, 1:] == 0).all() and (matrices[:, 1:, 0] == 0).all()
    across = torch.sign(matrices[:, 1, 1])  # of the mirrored y axis; cos of the angle is positive
    angles = torch.rad2deg(torch.atan(matrices[:, 2, 1] / matrices[:, 1, 1])).numpy()
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(angles, across)[0, 1]) < 0.06
    assert abs(np.corrcoef(angles[::2], angles[1::2])[0, 1]) < 0.08


def test_the_generator_decides() -> None:
    draws = [draw_orientations(5, 0.5, 20.0, seeded(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_colours_are_turned_each_by_itself() -> None:
    boxes = [torch.rand(3, 1, 15, 17, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    turns = draw_orientations(2, 0.5, 40.0, torch.Generator().manual_seed(3))
    found = resize_oriented(boxes, (1, 12, 14), turns, (999.0, 2.0, 2.5))
    assert found.shape == (2, 3, 1, 12, 14)
    for c in range(3):
        alone = resize_oriented([b[c] for b in boxes], (1, 12, 14), turns, (999.0, 2.0, 2.5))
        torch.testing.assert_close(found[:, c : c + 1], alone)
    plain = resize_boxes(boxes, (1, 12, 14))
    same = resize_oriented(boxes, (1, 12, 14), torch.eye(3).repeat(2, 1, 1), (999.0, 2.0, 2.5))
    torch.testing.assert_close(same, plain, atol=1e-5, rtol=1e-5)
    assert (found - plain).abs().amax() > 0.1
