"""Weak views: geometry against SciPy, ranges and probabilities over thousands of draws."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2yiq

from screener_nnu.plans import JitterSettings
from screener_nnu.pretext_settings import MedMixSettings, ViewSettings
from screener_nnu.sampling.jitter import colour_jitter
from screener_nnu.sampling.views import patches_left, weak_views
from screener_nnu.synthetic.medmix import medmix

torch.set_num_threads(1)
DEFAULT = ViewSettings()
CROPS_ALONE = replace(DEFAULT, jitter=0.0, grey=0.0, blur=0.0)
WHOLE = replace(DEFAULT, crop_scale=(1.0, 1.0), crop_edge=(1.0, 1.0), flip=0.0)
NEUTRAL = replace(WHOLE, jitter=0.0, grey=0.0, blur=0.0)
STILL = JitterSettings(probability=0.0)
SHAPES = {
    "grey pictures": (6, 1, 1, 30, 34),
    "colour pictures": (6, 3, 1, 30, 34),
    "volumes": (6, 1, 14, 18, 16),
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=list(SHAPES))


def batch(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def view(
    images: torch.Tensor,
    settings: ViewSettings = CROPS_ALONE,
    seed: int = 0,
    jitter: JitterSettings = STILL,
    **options: Any,
) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return weak_views(images, generator, settings, jitter, **options)[0]


def ramp(shape: tuple[int, ...], axis: int) -> torch.Tensor:
    """Images (B, 1, D, H, W) that rise from 0 to 1 along an axis."""
    steps = torch.linspace(0, 1, shape[2 + axis])
    return steps.view([-1 if i == axis else 1 for i in range(3)]).expand(shape[0], 1, *shape[2:])


def places(shape: tuple[int, ...], settings: ViewSettings, seed: int) -> np.ndarray:
    """Voxels (B, 3, D, H, W) that those of the views show, within the border."""
    seen = [view(ramp(shape, axis), settings, seed) for axis in range(3)]
    last = np.array(shape[2:]).reshape(3, 1, 1, 1) - 1
    return torch.cat(seen, dim=1).numpy() * last


def crops(shape: tuple[int, ...], settings: ViewSettings, seed: int = 0) -> tuple[Any, Any]:
    """First and last edge of each view in its image, as parts of it, (B, 3); mirrored: swapped."""
    found = places(shape, settings, seed)
    middle = [n // 2 for n in shape[2:]]
    firsts, edges = [], []
    for axis, n in enumerate(shape[2:]):
        line = [slice(None), axis, *middle]
        line[2 + axis] = slice(None)
        values = found[tuple(line)]
        # Two voxels in the middle, where the border is far away.
        slope = (
            values[:, middle[axis]] - values[:, middle[axis] - 1] if n > 1 else np.ones(len(values))
        )
        first = values[:, middle[axis]] - slope * (middle[axis] + 0.5) + 0.5
        firsts.append(first / n)
        edges.append(slope)
    first, edge = np.stack(firsts, 1), np.stack(edges, 1)
    return first, first + edge


@shapes
def test_neutral_settings_change_nothing(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    torch.testing.assert_close(view(images, NEUTRAL), images, atol=2e-6, rtol=0)


@shapes
def test_views_are_linear_between_voxels_and_go_on_at_the_border(shape: tuple[int, ...]) -> None:
    images, found = batch(shape), view(batch(shape), seed=5)
    assert found.shape == shape
    grey = (shape[0], 1, *shape[2:])
    at = places(grey, CROPS_ALONE, 5)
    for image, seen, where in zip(images.numpy(), found.numpy(), at, strict=True):
        for colour in range(shape[1]):
            expected = ndimage.map_coordinates(
                image[colour].astype(float), where, order=1, mode="nearest"
            )
            np.testing.assert_allclose(seen[colour], expected, atol=1e-4)


@shapes
def test_masks_follow_the_geometry(shape: tuple[int, ...]) -> None:
    """The nearest voxel's number; the colours of an image have no say in its mask."""
    grey = (shape[0], 1, *shape[2:])
    masks = (4 * batch(grey)).to(torch.uint8)
    generator = torch.Generator().manual_seed(5)
    _, found = weak_views(batch(shape), generator, CROPS_ALONE, STILL, masks=masks)
    assert found is not None and found.dtype == torch.uint8 and found.shape == grey
    at = places(grey, CROPS_ALONE, 5)
    for mask, seen, where in zip(masks[:, 0].numpy(), found[:, 0].numpy(), at, strict=True):
        expected = ndimage.map_coordinates(mask, where, order=0, mode="nearest")
        assert (seen == expected).mean() > 0.995
    whole = weak_views(batch(shape), generator, NEUTRAL, STILL, masks=masks > 1)[1]
    assert whole is not None and torch.equal(whole, masks > 1)


def test_crops_of_pictures_have_a_uniform_area_and_lie_inside() -> None:
    settings = replace(CROPS_ALONE, crop_scale=(0.3, 0.9))
    first, last = crops((5000, 1, 1, 24, 36), settings)
    low, high = np.minimum(first, last)[:, 1:], np.maximum(first, last)[:, 1:]
    assert low.min() > -1e-3 and high.max() < 1 + 1e-3
    height, width = (high - low).T
    area = height * width
    assert 0.299 < area.min() and area.max() < 0.901
    assert area.mean() == pytest.approx(0.6, abs=0.01)
    assert area.std() == pytest.approx(0.6 / math.sqrt(12), rel=0.03)
    aspect = height / width
    assert 0.749 < aspect.min() < 0.76 and 1.31 < aspect.max() < 1.335
    free = 1 - height
    assert (low[:, 0] / free)[free > 0.1].mean() == pytest.approx(0.5, abs=0.02)


def test_pictures_are_mirrored_left_and_right_alone() -> None:
    first, last = crops((4000, 1, 1, 12, 12), CROPS_ALONE)
    mirrored = first > last
    assert not mirrored[:, 1].any()
    assert abs(mirrored[:, 2].mean() - 0.5) < 4.5 * 0.5 / math.sqrt(4000)
    first, last = crops((500, 1, 1, 12, 12), replace(CROPS_ALONE, flip=0.0))
    assert (first < last).all()


def test_edges_of_crops_of_volumes_are_uniform_and_independent() -> None:
    first, last = crops((4000, 1, 10, 12, 14), CROPS_ALONE)
    edge = np.abs(last - first)
    assert 0.669 < edge.min() and edge.max() < 1.331
    np.testing.assert_allclose(edge.mean(0), 1, atol=0.01)
    np.testing.assert_allclose(edge.std(0), 0.66 / math.sqrt(12), rtol=0.03)
    assert np.abs(np.corrcoef(edge.T) - np.eye(3)).max() < 0.06
    low, high = np.minimum(first, last), np.maximum(first, last)
    small = edge < 1
    assert (low[small] > -1e-3).all() and (high[small] < 1 + 1e-3).all()
    assert (low[~small] < 1e-3).all() and (high[~small] > 1 - 1e-3).all()


def test_volumes_are_mirrored_in_plane() -> None:
    first, last = crops((4000, 1, 6, 8, 8), replace(CROPS_ALONE, flip=0.3))
    mirrored = first > last
    assert not mirrored[:, 0].any()
    assert np.abs(mirrored[:, 1:].mean(0) - 0.3).max() < 4.5 * math.sqrt(0.21 / 4000)
    both = (mirrored[:, 1] & mirrored[:, 2]).mean()
    assert abs(both - 0.09) < 4.5 * math.sqrt(0.09 * 0.91 / 4000)


def slopes_and_offsets(settings: ViewSettings) -> tuple[np.ndarray, np.ndarray, float]:
    """Colours of a grey picture are a line through its values where nothing is clipped."""
    images = (0.4 + 0.2 * batch((1, 1, 1, 8, 8))).expand(5000, -1, -1, -1, -1)
    found = view(images, settings).flatten(1).numpy().astype(float)
    before = images[0].flatten().numpy().astype(float)
    slope, offset = np.polyfit(before, found.T, 1)
    residual = found - (slope[:, None] * before + offset[:, None])
    assert np.abs(residual).max() < 1e-4
    return slope, offset, before.mean()


def assert_gated(factors: np.ndarray, low: float, high: float, probability: float) -> None:
    """With a probability uniform between bounds, else 1."""
    applied = np.abs(factors - 1) > 1e-4
    bound = 4.5 * math.sqrt(probability * (1 - probability) / len(factors))
    assert abs(applied.mean() - probability) < bound + 1e-3
    assert low - 1e-3 < factors.min() < low + 0.01 and high - 0.01 < factors.max() < high + 1e-3
    assert factors[applied].mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))


def test_brightness_of_pictures() -> None:
    colours = replace(WHOLE, blur=0.0, brightness=0.4, contrast=0.0)
    slope, offset, _ = slopes_and_offsets(colours)
    assert np.abs(offset).max() < 1e-3
    assert_gated(slope, 0.6, 1.4, 0.8)


def test_contrast_of_pictures_turns_about_the_mean() -> None:
    colours = replace(WHOLE, blur=0.0, brightness=0.0, contrast=0.3, jitter=0.6)
    slope, offset, mean = slopes_and_offsets(colours)
    np.testing.assert_allclose(offset + slope * mean, mean, atol=1e-3)
    assert_gated(slope, 0.7, 1.3, 0.6)


def test_brightness_and_contrast_are_applied_together_in_this_order() -> None:
    colours = replace(WHOLE, blur=0.0, brightness=0.2, contrast=0.2)
    slope, offset, mean = slopes_and_offsets(colours)
    brightness = (offset + slope * mean) / mean  # the mean after contrast is that before it
    contrast = slope / brightness
    assert_gated(brightness, 0.8, 1.2, 0.8)
    assert_gated(contrast, 0.8, 1.2, 0.8)
    changed = np.abs(brightness - 1) > 1e-3
    assert (np.abs(contrast[changed] - 1) > 1e-4).mean() > 0.98


def chroma(images: torch.Tensor) -> np.ndarray:
    yiq = rgb2yiq(np.moveaxis(images.numpy().astype(float), 1, -1))
    return (yiq[..., 1] + 1j * yiq[..., 2]).reshape(len(images), -1)


def test_saturation_and_hue_of_colour_pictures() -> None:
    images = (0.4 + 0.2 * batch((1, 3, 1, 6, 6))).expand(4000, -1, -1, -1, -1)
    settings = replace(
        WHOLE, blur=0.0, brightness=0.0, contrast=0.0, grey=0.0, saturation=0.4, hue=0.1
    )
    found = view(images, settings)
    ratio = chroma(found) / chroma(images)
    np.testing.assert_allclose(ratio, ratio.mean(1, keepdims=True).repeat(36, 1), atol=1e-2)
    assert_gated(np.abs(ratio).mean(1), 0.6, 1.4, 0.8)
    turns = np.angle(ratio.mean(1)) / (2 * np.pi)
    assert -0.1005 < turns.min() < -0.098 and 0.098 < turns.max() < 0.1005
    luma = [rgb2yiq(np.moveaxis(i.numpy(), 1, -1))[..., 0] for i in (images, found)]
    np.testing.assert_allclose(*luma, atol=1e-4)


def test_a_fifth_of_colour_pictures_becomes_grey() -> None:
    images = batch((3000, 3, 1, 4, 4))
    found = view(images, replace(NEUTRAL, grey=0.2))
    grey = (found.amax(1) - found.amin(1)).flatten(1).amax(1) < 1e-5
    assert abs(float(grey.float().mean()) - 0.2) < 4.5 * math.sqrt(0.16 / 3000)
    luma = rgb2yiq(np.moveaxis(images[grey].numpy(), 1, -1))[..., 0]
    np.testing.assert_allclose(found[grey][:, 0].numpy(), luma, atol=1e-5)
    torch.testing.assert_close(found[~grey], images[~grey], atol=2e-6, rtol=0)


def test_blur_of_pictures_is_gaussian_of_a_uniform_sigma() -> None:
    """A point's blurred peak tells sigma."""
    points = torch.zeros(2000, 1, 1, 17, 17)
    points[..., 8, 8] = 1
    found = view(points, replace(NEUTRAL, blur=0.5))[:, 0, 0].numpy().astype(float)
    sigmas = np.linspace(0.1, 2, 400)
    steps = np.arange(-8, 9)
    peaks = np.array([1 / np.exp(-0.5 * (steps / s) ** 2).sum() ** 2 for s in sigmas])
    blurred = found[:, 8, 8] < peaks[sigmas > 0.4].max()  # thinner ones cannot be seen
    share = 0.5 * (2 - 0.4) / 1.9
    assert abs(blurred.mean() - share) < 4.5 * math.sqrt(share * (1 - share) / 2000)
    fitted = np.interp(found[blurred, 8, 8], peaks[::-1], sigmas[::-1])
    assert fitted.max() <= 2 + 1e-3 and fitted.mean() == pytest.approx(1.2, abs=0.05)
    for index in np.flatnonzero(blurred)[:5]:
        sigma = np.interp(found[index, 8, 8], peaks[::-1], sigmas[::-1])
        expected = ndimage.gaussian_filter(
            points[index, 0, 0].numpy().astype(float), sigma, radius=8
        )
        np.testing.assert_allclose(found[index], expected, atol=1e-3)


def test_volumes_are_jittered_with_the_voxels_of_their_view() -> None:
    """Half the edge in plane, resized to the whole, halves the voxels."""
    images = batch((4, 1, 10, 16, 16))
    settings = replace(NEUTRAL, crop_edge=(0.5, 0.5))
    jitter = JitterSettings(probability=1.0)
    found = view(images, settings, 3, jitter, spacing=(9.0, 3.0, 4.0))
    generator = torch.Generator().manual_seed(3)
    torch.rand(3, 4, 3, generator=generator)  # the crops
    sizes = torch.tensor([[1.5, 2.0]]).expand(4, 2)
    expected = colour_jitter(view(images, settings, 3), sizes, jitter, generator)
    torch.testing.assert_close(found, expected)
    assert float((found - view(images, settings, 3)).abs().max()) > 0.05


@shapes
def test_values_stay_in_the_unit_range_and_images_as_they_were(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    kept = images.clone()
    for seed in range(20):
        found = view(images, DEFAULT, seed, JitterSettings())
        assert 0 <= float(found.min()) and float(found.max()) <= 1 + 1e-6
        assert torch.isfinite(found).all()
    assert torch.equal(images, kept)


@shapes
def test_each_image_of_a_batch_has_a_view_of_its_own(shape: tuple[int, ...]) -> None:
    images = batch((1, *shape[1:])).expand(shape).contiguous()
    found = view(images, DEFAULT, 1, JitterSettings())
    assert all(not torch.allclose(found[0], found[i], atol=0.02) for i in range(1, shape[0]))


@shapes
def test_the_generator_decides(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    first, again, other = (view(images, DEFAULT, s, JitterSettings()) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=0.02)


@shapes
def test_mixed_precision_of_the_caller_does_not_count(shape: tuple[int, ...]) -> None:
    images = batch(shape)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = view(images, DEFAULT, 1, JitterSettings())
    assert torch.equal(found, view(images, DEFAULT, 1, JitterSettings()))


@shapes
def test_two_views_of_one_changed_image_show_the_same_patch(shape: tuple[int, ...]) -> None:
    """Its colour, which no other voxel has, lies where the views' masks say."""
    images = 0.3 * batch(shape)
    generator = torch.Generator().manual_seed(0)
    pasted, masks = medmix(images, 1, generator, MedMixSettings())
    pasted[(masks > 0).expand(shape)] = 0.9
    views, seen = weak_views(
        torch.cat([pasted, pasted]), generator, CROPS_ALONE, STILL, masks=torch.cat([masks, masks])
    )
    assert seen is not None
    count, both = shape[0], (seen > 0).flatten(1).any(1)
    assert int((both[:count] & both[count:]).sum()) >= count - 2
    for first, second in zip(views[:count], views[count:], strict=True):
        assert not torch.allclose(first, second, atol=0.02)
    for image, mask in zip(views.numpy(), seen[:, 0].numpy() > 0, strict=True):
        inside = ndimage.binary_erosion(mask, np.ones((1 if shape[2] == 1 else 3, 3, 3)))
        np.testing.assert_allclose(image[:, inside], 0.9, atol=1e-5)
        outside = ~ndimage.binary_dilation(mask, np.ones((3, 3, 3)), 2)
        assert (image[:, outside] < 0.31).all()


def test_without_masks_there_are_none() -> None:
    assert weak_views(batch(SHAPES["volumes"]), torch.Generator(), DEFAULT, STILL)[1] is None


@shapes
def test_patches_left_are_those_of_which_a_quarter_is_seen(shape: tuple[int, ...]) -> None:
    images, generator = batch(shape), torch.Generator().manual_seed(2)
    settings = replace(CROPS_ALONE, crop_scale=(0.15, 0.5), crop_edge=(0.4, 0.7))
    lost = 0
    for _ in range(10):
        _, masks = medmix(images, 3, generator, MedMixSettings())
        _, seen = weak_views(images, generator, settings, STILL, masks=masks)
        assert seen is not None
        found = patches_left(masks, seen, 3)
        for before, after, left in zip(masks.numpy(), seen.numpy(), found.tolist(), strict=True):
            expected = 0
            for number in (1, 2, 3):
                shown = np.count_nonzero(after == number)
                expected += shown > 0 and shown >= np.count_nonzero(before == number) / 4
            assert left == expected
            lost += 3 - left
    assert 10 < lost < 3 * 10 * shape[0] - 10


def test_all_patches_are_left_in_a_whole_view_and_none_where_there_are_none() -> None:
    images = batch(SHAPES["volumes"])
    _, masks = medmix(images, 2, torch.Generator().manual_seed(0), MedMixSettings())
    assert patches_left(masks, masks, 2).tolist() == [2] * 6
    assert patches_left(masks, torch.zeros_like(masks), 2).tolist() == [0] * 6
    assert patches_left(torch.zeros_like(masks), torch.zeros_like(masks), 0).tolist() == [0] * 6
