"""MedMix: so many patches of other images, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from screener_nnu.errors import ScreenerError
from screener_nnu.pretext_settings import MedMixSettings
from screener_nnu.synthetic.medmix import medmix

torch.set_num_threads(1)
SETTINGS = MedMixSettings()
UNDEFORMED = replace(SETTINGS, probability=0.0)
SHAPES = {
    "grey pictures": (5, 1, 1, 40, 48),
    "colour pictures": (5, 3, 1, 40, 48),
    "volumes": (4, 1, 18, 20, 24),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))


def batch(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def mixed(
    images: torch.Tensor,
    count: int,
    seed: int = 0,
    settings: MedMixSettings = SETTINGS,
    bodies: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    return medmix(images, count, torch.Generator().manual_seed(seed), settings, bodies)


@shapes
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_mask_has_as_many_components_as_patches(shape: tuple[int, ...], count: int) -> None:
    """Boxes even under diagonal neighbourhood, numbered one by one."""
    for seed in range(20):
        images, masks = mixed(batch(shape), count, seed)
        assert images.shape == shape and masks.shape == (shape[0], 1, *shape[2:])
        assert masks.dtype == torch.uint8
        for mask in masks[:, 0].numpy():
            labels, found = ndimage.label(mask > 0, np.ones((3, 3, 3)))
            assert found == count
            boxes = ndimage.find_objects(labels)
            assert sorted(mask[box].max() for box in boxes) == list(range(1, count + 1))
            assert all((mask[box] == mask[box].max()).all() for box in boxes)


@shapes
def test_nothing_outside_the_mask_changes(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    kept = images.clone()
    for seed in range(10):
        changed, masks = mixed(images, 3, seed)
        outside = (masks == 0).expand(shape)
        assert torch.equal(changed[outside], images[outside])
        assert 0 <= float(changed.min()) and float(changed.max()) <= 1
        inside = (masks > 0).expand(shape)
        assert float((changed[inside] != images[inside]).float().mean()) > 0.95
    assert torch.equal(images, kept)


@shapes
def test_no_patches_are_the_identity(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    changed, masks = mixed(images, 0)
    assert torch.equal(changed, images) and not masks.any()


@shapes
def test_a_patch_never_comes_from_its_own_image(shape: tuple[int, ...]) -> None:
    """Images of one value each show what is pasted, and from every other image."""
    values = torch.linspace(0.1, 0.9, shape[0]).view(-1, 1, 1, 1, 1)
    images = values.expand(shape).contiguous()
    sources: dict[int, set[float]] = {i: set() for i in range(shape[0])}
    for seed in range(40):
        changed, masks = mixed(images, 3, seed, UNDEFORMED)
        for i in range(shape[0]):
            for number in (1, 2, 3):
                pasted = changed[i][(masks[i] == number).expand(shape[1:])].unique()
                assert len(pasted) == 1 and float(pasted) != float(values[i])
                sources[i].add(float(pasted))
    for i, found in sources.items():
        others = {float(v) for j, v in enumerate(values.flatten()) if j != i}
        assert found == others


@shapes
def test_an_undeformed_patch_is_a_part_of_another_image(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    changed, masks = mixed(images, 2, 4, UNDEFORMED)
    for i in range(shape[0]):
        for number in (1, 2):
            box = ndimage.find_objects((masks[i, 0] == number).numpy().astype(int))[0]
            patch = changed[(i, slice(None), *box)].numpy()
            others = images[torch.arange(shape[0]) != i].numpy()
            windows = sliding_window_view(others, patch.shape[1:], (2, 3, 4))
            same = (windows == patch[None, :, None, None, None]).all(axis=(1, 5, 6, 7))
            assert same.sum() == 1


@shapes
def test_the_generator_decides(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    (first, mask), (again, same), (other, moved) = (mixed(images, 3, s) for s in (1, 1, 2))
    assert torch.equal(first, again) and torch.equal(mask, same)
    assert not torch.equal(mask, moved) and not torch.equal(first, other)


@shapes
def test_images_of_a_batch_are_drawn_by_themselves(shape: tuple[int, ...]) -> None:
    _, masks = mixed(batch(shape), 2)
    assert not any(torch.equal(masks[0], masks[i]) for i in range(1, shape[0]))


@pytest.mark.parametrize("count", [1, 3])
def test_half_of_a_patch_lies_in_the_body(count: int) -> None:
    images = batch(SHAPES["volumes"])
    bodies = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    bodies[:, 4:, :, 6:] = True
    for seed in range(10):
        _, masks = mixed(images, count, seed, bodies=bodies)
        for number in range(1, count + 1):
            patch = (masks[:, 0] == number).flatten(1)
            share = (patch & bodies.flatten(1)).sum(1) / patch.sum(1)
            assert (share >= 0.5).all()


def test_one_image_is_refused() -> None:
    with pytest.raises(ScreenerError, match="taken from other images"):
        mixed(batch((1, 1, 1, 32, 32)), 1)


@shapes
def test_patches_that_no_deformation_meets_are_as_many_as_expected(shape: tuple[int, ...]) -> None:
    """A patch that no deformation meets is a part of its source: all values are among its own."""
    images = batch(shape)
    known = images.flatten().sort().values
    count = untouched = 0
    for seed in range(80):
        changed, masks = mixed(images, 2, seed)
        for i in range(shape[0]):
            for number in (1, 2):
                pasted = changed[i][(masks[i] == number).expand(shape[1:])]
                place = torch.searchsorted(known, pasted).clamp(max=len(known) - 1)
                untouched += bool((known[place] == pasted).float().mean() > 0.99)
                count += 1
    expected = 0.75**4
    assert abs(untouched / count - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_images_that_are_not_contiguous_are_read_as_they_are() -> None:
    images = batch((4, 1, 1, 48, 40)).transpose(3, 4)
    found, masks = mixed(images, 2, 3)
    expected, same = mixed(images.contiguous(), 2, 3)
    assert torch.equal(found, expected) and torch.equal(masks, same)
