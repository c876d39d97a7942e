"""Shifts by name: what each does to an image, and how many classes it makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from screener_nnu.errors import ScreenerError
from screener_nnu.pretext_settings import METHODS, MedMixSettings, ViewSettings
from screener_nnu.synthetic.medmix import medmix
from screener_nnu.synthetic.shifts import SHIFTS, shift_of

torch.set_num_threads(1)
SETTINGS = MedMixSettings()
SHAPES = ((4, 3, 1, 32, 32), (3, 1, 12, 16, 16))
both = pytest.mark.parametrize("shape", SHAPES)


def batch(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def shifted(
    name: str, images: torch.Tensor, label: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return SHIFTS[name](images, None, label, generator, SETTINGS)


@both
@pytest.mark.parametrize("name", SHIFTS)
def test_class_0_is_the_image_as_it_is(name: str, shape: tuple[int, ...]) -> None:
    images = batch(shape)
    found, masks = shifted(name, images, 0)
    assert torch.equal(found, images) and not masks.any()


@both
@pytest.mark.parametrize("name", sorted(set(SHIFTS) - {"none"}))
def test_other_classes_change_images_within_their_masks(name: str, shape: tuple[int, ...]) -> None:
    images = batch(shape)
    for label in (1, 2, 3):
        found, masks = shifted(name, images, label)
        assert found.shape == shape and masks.shape == (shape[0], 1, *shape[2:])
        assert masks.dtype == torch.uint8 and found.is_contiguous()
        changed = (found != images).any(1, keepdim=True)
        assert changed.flatten(1).any(1).all() and not (changed & (masks == 0)).any()
        assert 0 <= float(found.min()) and float(found.max()) <= 1
        if SHIFTS[name].of_patches:
            assert (masks.flatten(1).amax(1) == label).all()
            for mask in masks[:, 0].numpy():
                assert ndimage.label(mask > 0, np.ones((3, 3, 3)))[1] == label
        else:
            assert (masks == 1).all()


@both
@pytest.mark.parametrize("name", SHIFTS)
def test_the_generator_decides(name: str, shape: tuple[int, ...]) -> None:
    label = 0 if name == "none" else 1
    first, again = (shifted(name, batch(shape), label, 3) for _ in range(2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    if SHIFTS[name].of_patches or name == "noise":
        assert not torch.equal(first[0], shifted(name, batch(shape), label, 4)[0])


def test_medmix_is_medmix() -> None:
    images, generator = batch(SHAPES[1]), torch.Generator().manual_seed(0)
    expected = medmix(images, 2, generator, SETTINGS)
    found = shifted("medmix", images, 2)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@both
def test_cutmix_takes_the_same_place_of_another_image(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    found, masks = shifted("cutmix", images, 2)
    for i in range(shape[0]):
        for number in (1, 2):
            inside = (masks[i] == number).expand(shape[1:])
            same = [torch.equal(found[i][inside], other[inside]) for other in images]
            assert sum(same) == 1 and not same[i]


@both
def test_cutpaste_takes_another_place_of_the_same_image(shape: tuple[int, ...]) -> None:
    """Each image has grey values of its own, in a range that tells it from the others."""
    images = batch(shape)[:, :1].expand(shape) * 0.05
    images = (images + torch.linspace(0.1, 0.8, shape[0]).view(-1, 1, 1, 1, 1)).contiguous()
    found, masks = shifted("cutpaste", images, 1)
    for i in range(shape[0]):
        box = ndimage.find_objects((masks[i, 0] > 0).numpy().astype(int))[0]
        patch = found[(i, slice(None), *box)].numpy()
        windows = np.lib.stride_tricks.sliding_window_view(
            images[i].numpy(), patch.shape[1:], (1, 2, 3)
        )
        flat = windows.reshape(shape[1], -1, patch[0].size)[0]
        # Other colours are a monotone curve of grey values: their order stays that of the source.
        order = patch[0].ravel().argsort()
        rising = (np.diff(flat[:, order], axis=1) >= -1e-6).all(1)
        assert rising.sum() == 1
        assert np.abs(flat[rising][0] - patch[0].ravel()).max() > 1e-4


def test_cutpaste_needs_no_other_image() -> None:
    found, masks = shifted("cutpaste", batch((1, 1, 1, 32, 32)), 2)
    assert int(masks.max()) == 2 and found.shape == (1, 1, 1, 32, 32)


@both
def test_rotation_turns_in_plane(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    for label in (1, 2, 3):
        expected = np.rot90(images.numpy(), label, (3, 4))
        np.testing.assert_array_equal(shifted("rotation", images, label)[0].numpy(), expected)


def test_rotation_of_a_wide_plane_is_resized() -> None:
    images = torch.linspace(0, 1, 20).view(1, 1, 1, 1, 20).expand(2, 1, 1, 10, 20).contiguous()
    turned = shifted("rotation", images, 1)[0]
    assert turned.shape == images.shape
    # Left and right became bottom and top.
    assert (turned[..., 0, :] > 0.9).all() and (turned[..., -1, :] < 0.1).all()
    assert torch.equal(shifted("rotation", images, 2)[0], images.flip(3, 4))


@both
def test_permutation_moves_quarters_in_24_ways(shape: tuple[int, ...]) -> None:
    half = shape[3] // 2
    images = batch(shape).numpy()
    quarters = [images[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    orders = set()
    for label in range(24):
        found = shifted("permutation", torch.from_numpy(images), label)[0].numpy()
        order = []
        for y in (0, half):
            for x in (0, half):
                block = found[..., y : y + half, x : x + half]
                order.append([np.array_equal(block, quarter) for quarter in quarters].index(True))
        assert sorted(order) == [0, 1, 2, 3]
        if 1 <= label <= 9:  # the nine that leave none in its place
            assert all(place != source for place, source in enumerate(order))
        orders.add(tuple(order))
    assert len(orders) == 24


def test_permutation_leaves_the_middle_line() -> None:
    images = batch((2, 1, 1, 9, 11))
    found = shifted("permutation", images, 1)[0]
    assert torch.equal(found[..., 4, :], images[..., 4, :])
    assert torch.equal(found[..., 5], images[..., 5])
    assert torch.equal(found.flatten(1).sort().values, images.flatten(1).sort().values)


def test_noise_grows_by_a_tenth_a_class() -> None:
    images = torch.full((2, 1, 10, 40, 40), 0.5)
    for label in (1, 2):
        noise = shifted("noise", images, label)[0] - 0.5
        inside = noise[noise.abs() < 0.499]
        share = len(inside) / noise.numel()
        assert share == pytest.approx({1: 1.0, 2: 0.9876}[label], abs=0.003)
        if label == 1:
            assert float(inside.std()) == pytest.approx(0.1, rel=0.02)
            assert abs(float(inside.mean())) < 0.003


def test_views_are_mirrored_where_that_leaves_the_class_as_it_is() -> None:
    """A plane that is the same left and right, turned to the left and mirrored, is turned right."""
    settings = ViewSettings(flip=0.4)
    half = batch((1, 1, 1, 16, 8))
    images = torch.cat([half, half.flip(4)], dim=4)
    for name in ("rotation", "permutation"):
        assert SHIFTS[name].views(settings) == replace(settings, flip=0.0)
        classes = [shifted(name, images, n)[0] for n in range(SHIFTS[name].most_classes or 0)]
        alike = [[torch.equal(c.flip(4), other) for other in classes] for c in classes]
        assert (np.array(alike) & ~np.eye(len(classes), dtype=bool)).any()
    for name in set(SHIFTS) - {"rotation", "permutation"}:
        assert SHIFTS[name].views(settings) == settings


def test_classes_that_a_shift_does_not_have() -> None:
    images = batch(SHAPES[0])
    for name, most in (("rotation", 4), ("permutation", 24), ("none", 1)):
        assert shift_of(name, most) is SHIFTS[name]
        with pytest.raises(ScreenerError, match=f"'{name}' makes at most {most} classes, but"):
            shift_of(name, most + 1)
        with pytest.raises(ValueError, match="no class"):
            shifted(name, images, most)
    assert shift_of("medmix", 7).most_classes is None
    with pytest.raises(ScreenerError, match="no shift 'mix'; known: medmix, cutpaste"):
        shift_of("mix", 2)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_shift_of_its_classes(name: str) -> None:
    method = METHODS[name]
    shift_of(method.shift, method.classes)
