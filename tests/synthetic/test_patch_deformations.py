"""Deformations of patches against NumPy and SciPy, and how often they happen."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2yiq, yiq2rgb

from screener_nnu.synthetic.patch_boxes import PatchBoxes
from screener_nnu.synthetic.patch_deformations import Deformations, Probabilities
from screener_nnu.synthetic.patch_voxels import PatchVoxels

torch.set_num_threads(1)
ALL = Probabilities(1, 1, 1, 1)
SIZES = {"picture": ((1, 15, 22), (1, 9, 6)), "volume": ((7, 11, 9), (6, 5, 12))}
EXTENT = {"picture": (1, 40, 44), "volume": (20, 24, 21)}


def whole(*rows: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(rows)


def patches(kind: str) -> PatchVoxels:
    """Two patches, the first of the second image and the other way round."""
    starts = whole((0, 3, 5), (0, 20, 30)) if kind == "picture" else whole((2, 3, 5), (9, 14, 1))
    sizes = whole(*SIZES[kind])
    boxes = PatchBoxes(
        number=torch.ones(2, dtype=torch.long),
        image=torch.tensor([0, 1]),
        source_image=torch.tensor([1, 0]),
        source_start=starts.flip(0).minimum(whole(EXTENT[kind]) - sizes),
        start=starts,
        size=sizes,
    )
    return PatchVoxels.of(boxes, int(sizes.prod(1).sum()))


def images(kind: str, colours: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(2, colours, *EXTENT[kind], generator=generator)


def undeformed(of: torch.Tensor, voxels: PatchVoxels) -> list[np.ndarray]:
    """The sources of the two patches, (C, d, h, w)."""
    found, first = [], 0
    for length in voxels.lengths.tolist():
        (z, y, x), (d, h, w) = (
            voxels.source_start[:, first].tolist(),
            voxels.size[:, first].tolist(),
        )
        source = int(voxels.source_image[first])
        found.append(of[source, :, z : z + d, y : y + h, x : x + w].numpy().astype(float))
        first += length
    return found


def as_patches(values: torch.Tensor, voxels: PatchVoxels) -> list[np.ndarray]:
    parts = values.split(voxels.lengths.tolist(), dim=1)
    firsts = (voxels.lengths.cumsum(0) - voxels.lengths).tolist()
    return [
        part.reshape(-1, *voxels.size[:, first].tolist()).numpy()
        for part, first in zip(parts, firsts, strict=True)
    ]


def deformations(kind: str, **probabilities: float) -> Deformations:
    generator = torch.Generator().manual_seed(8)
    return Deformations.draw(2, kind == "picture", Probabilities(**probabilities), generator)


def fisheye_places(
    size: tuple[int, ...], index: tuple[float, ...], centre: np.ndarray, power: float
) -> list[float]:
    """Voxel that the fisheye looks at, in numbers that run from -1 to 1 over the patch."""
    g = [(i + 0.5) / n * 2 - 1 for i, n in zip(index, size, strict=True)]
    distance = math.sqrt(sum((a - c) ** 2 for a, c in zip(g, centre, strict=True)))
    moved = [a + (a - c) * distance**power for a, c in zip(g, centre, strict=True)]
    return [(a + 1) / 2 * n - 0.5 for a, n in zip(moved, size, strict=True)]


def wave_places(
    size: tuple[int, ...], index: tuple[float, ...], moved: int, along: int, phase: float
) -> list[float]:
    places = list(map(float, index))
    length = 0.6 * size[moved]
    angle = 2 * math.pi * index[along] / length + phase
    places[moved] += size[along] / 16 * math.sin(angle)
    return places


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("steps", [("wave",), ("fisheye",), ("wave", "fisheye"), ()])
def test_geometry_equals_map_coordinates(kind: str, steps: tuple[str, ...]) -> None:
    """The wave shifts the fisheye's picture: its places are those that the fisheye looks from."""
    drawn = deformations(kind, **dict.fromkeys(steps, 1.0))
    voxels, pixels = patches(kind), images(kind, 3)
    found = as_patches(voxels.sample(pixels, drawn.warp(voxels)), voxels)
    for k, source in enumerate(undeformed(pixels, voxels)):
        size = source.shape[1:]
        places = np.zeros((3, *size))
        for index in np.ndindex(*size):
            at: list[float] = list(index)
            if "wave" in steps:
                moved, along = int(drawn.moved[k]), int(drawn.along[k])
                at = wave_places(size, tuple(at), moved, along, float(drawn.phase[k]))
            if "fisheye" in steps:
                centre = drawn.centre[:, k].numpy()
                at = fisheye_places(size, tuple(at), centre, float(drawn.power[k]))
            places[(slice(None), *index)] = at
        for colour in range(3):
            expected = ndimage.map_coordinates(source[colour], places, order=1, mode="nearest")
            np.testing.assert_allclose(found[k][colour], expected, atol=2e-5)
        if steps:
            assert np.abs(found[k] - source).max() > 0.2
        else:
            assert (found[k] == source.astype(np.float32)).all()


@pytest.mark.parametrize("kind", SIZES)
def test_patches_keep_to_their_box(kind: str) -> None:
    """What lies beyond the border of the source's box is never seen."""
    voxels = patches(kind)
    pixels = torch.zeros(2, 1, *EXTENT[kind])
    source = voxels.source_start + voxels.place
    pixels[(voxels.source_image, 0, *source)] = 1
    found = voxels.sample(pixels, deformations(kind, fisheye=1, wave=1).warp(voxels))
    torch.testing.assert_close(found, torch.ones_like(found))


def test_grey_pictures_change_brightness_and_contrast() -> None:
    drawn, voxels = deformations("picture", colours=1), patches("picture")
    values = 0.3 + 0.3 * torch.rand(1, len(voxels.patch))
    found = drawn.recolour(values, voxels, torch.Generator())
    for k, (before, after) in enumerate(
        zip(as_patches(values, voxels), as_patches(found, voxels), strict=True)
    ):
        brightness, contrast = drawn.colours[:2, k].tolist()
        bright = before.astype(float) * brightness
        expected = np.clip((bright - bright.mean()) * contrast + bright.mean(), 0, 1)
        np.testing.assert_allclose(after, expected, atol=1e-5)


def test_colour_pictures_change_saturation_and_hue_as_well() -> None:
    drawn, voxels = deformations("picture", colours=1), patches("picture")
    values = 0.1 + 0.8 * torch.rand(3, len(voxels.patch))
    found = drawn.recolour(values, voxels, torch.Generator())
    for k, (before, after) in enumerate(
        zip(as_patches(values, voxels), as_patches(found, voxels), strict=True)
    ):
        brightness, contrast, saturation, turns = drawn.colours[:, k].tolist()
        yiq = rgb2yiq(np.moveaxis(before.astype(float) * brightness, 0, -1))
        mean = yiq[..., 0].mean()
        yiq[..., 0] = (yiq[..., 0] - mean) * contrast + mean
        chroma = yiq[..., 1] + 1j * yiq[..., 2]
        chroma *= contrast * saturation * np.exp(2j * np.pi * turns)
        yiq[..., 1], yiq[..., 2] = chroma.real, chroma.imag
        expected = np.moveaxis(yiq2rgb(yiq), -1, 0).clip(0, 1)
        np.testing.assert_allclose(after, expected, atol=1e-4)


def test_volumes_change_gain_offset_and_gamma() -> None:
    drawn, voxels = deformations("volume", colours=1), patches("volume")
    values = torch.rand(1, len(voxels.patch))
    found = drawn.recolour(values, voxels, torch.Generator())
    for k, (before, after) in enumerate(
        zip(as_patches(values, voxels), as_patches(found, voxels), strict=True)
    ):
        gain, offset, gamma = drawn.colours[:, k].tolist()
        expected = np.clip(before.astype(float) * gain + offset, 0, 1) ** gamma
        np.testing.assert_allclose(after, expected, atol=1e-5)


@pytest.mark.parametrize("kind", SIZES)
def test_noise_has_its_deviation_and_is_clipped(kind: str) -> None:
    drawn, voxels = deformations(kind, noise=1), patches(kind)
    drawn = replace(drawn, deviation=torch.tensor([0.05, 0.5]))
    values = torch.full((3, len(voxels.patch)), 0.5)
    found = drawn.recolour(values, voxels, torch.Generator().manual_seed(0))
    small, large = as_patches(found, voxels)
    assert (small - 0.5).std() == pytest.approx(0.05, rel=0.1)
    assert np.abs(np.corrcoef(small.reshape(3, -1)) - np.eye(3)).max() < 0.15
    assert large.min() == 0 and large.max() == 1


def test_without_deformations_colours_stay() -> None:
    drawn, voxels = deformations("picture"), patches("picture")
    values = torch.rand(3, len(voxels.patch))
    assert torch.equal(drawn.recolour(values, voxels, torch.Generator()), values)


@pytest.mark.parametrize("pictures", [True, False])
def test_each_deformation_happens_to_a_quarter_and_independently(pictures: bool) -> None:
    count = 40_000
    quarter = Probabilities(*(0.25,) * 4)
    drawn = Deformations.draw(count, pictures, quarter, torch.Generator().manual_seed(1))
    applied = drawn.applied.numpy()
    bound = 4.5 * np.sqrt(0.25 * 0.75 / count)
    assert np.abs(applied.mean(1) - 0.25).max() < bound
    for first, second in combinations(range(4), 2):
        both = (applied[first] & applied[second]).mean()
        assert abs(both - 1 / 16) < 4.5 * np.sqrt(1 / 16 * 15 / 16 / count)
    none = (~applied).all(0).mean()
    assert abs(none - 0.75**4) < 4.5 * np.sqrt(0.75**4 * (1 - 0.75**4) / count)
    # Patch by patch.
    assert abs(np.corrcoef(applied[0, 1:], applied[0, :-1])[0, 1]) < 5 / np.sqrt(count)


def test_probabilities_are_those_of_the_deformations_they_are_named_after() -> None:
    for index, name in enumerate(("colours", "noise", "fisheye", "wave")):
        applied = deformations("volume", **{name: 1.0}).applied
        assert applied[index].all() and int(applied.sum()) == 2


def assert_uniform(values: torch.Tensor, low: float, high: float) -> None:
    assert low <= float(values.min()) and float(values.max()) <= high
    assert float(values.mean()) == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
    assert float(values.std()) == pytest.approx((high - low) / math.sqrt(12), rel=0.03)


@pytest.mark.parametrize("pictures", [True, False])
def test_strengths_are_uniform_in_their_ranges(pictures: bool) -> None:
    drawn = Deformations.draw(8000, pictures, ALL, torch.Generator().manual_seed(2))
    if pictures:
        for factor in drawn.colours[:3]:
            assert_uniform(factor, 0.6, 1.4)
        assert_uniform(drawn.colours[3], -0.1, 0.1)
        torch.testing.assert_close(drawn.deviation**2, torch.full((8000,), 0.05))
        assert (drawn.centre[0] == 0).all()
        assert (drawn.moved == 2).all() and (drawn.along == 1).all()
    else:
        for values, bounds in zip(
            drawn.colours, ((0.8, 1.2), (-0.1, 0.1), (0.7, 1.4)), strict=True
        ):
            assert_uniform(values, *bounds)
        assert_uniform(drawn.deviation, 0.02, 0.1)
        assert_uniform(drawn.centre[0], -0.3, 0.3)
        pairs = np.bincount((3 * drawn.moved + drawn.along).numpy(), minlength=9).reshape(3, 3)
        assert (np.diag(pairs) == 0).all()
        assert np.abs(pairs[~np.eye(3, dtype=bool)] - 8000 / 6).max() < 5 * math.sqrt(8000 / 6)
    assert_uniform(drawn.centre[1], -0.3, 0.3)
    assert_uniform(drawn.power, 0.9, 1.0)
    assert_uniform(drawn.phase, 0, 2 * math.pi)
