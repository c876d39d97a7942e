"""Boxes of patches: sizes, places apart from each other and in the body, and their sources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.pretext_settings import MedMixSettings
from screener_nnu.synthetic.patch_boxes import Source, draw_boxes

torch.set_num_threads(1)
PICTURE, WIDE, VOLUME = (1, 96, 128), (1, 40, 120), (20, 24, 28)
SETTINGS = MedMixSettings()


def draw(
    extent: tuple[int, int, int],
    batch: int,
    count: int,
    seed: int = 0,
    source: Source = Source.OTHER,
    settings: MedMixSettings = SETTINGS,
    bodies: torch.Tensor | None = None,
) -> dict[str, np.ndarray]:
    """Boxes as arrays (B, n, ...)."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.Size((batch, 1, *extent))
    boxes, voxels = draw_boxes(shape, count, source, generator, settings, bodies)
    assert voxels == int(boxes.size.prod(1).sum())
    order = (boxes.image * count + boxes.number - 1).argsort()
    arrays = {name: value[order].numpy() for name, value in vars(boxes).items()}
    assert (arrays["number"].reshape(batch, count) == np.arange(1, count + 1)).all()
    assert (arrays["image"].reshape(batch, count) == np.arange(batch)[:, None]).all()
    return {name: a.reshape(batch, count, *a.shape[1:]) for name, a in arrays.items()}


def painted(extent: tuple[int, int, int], start: np.ndarray, size: np.ndarray) -> np.ndarray:
    mask = np.zeros(extent, bool)
    mask[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = True
    return mask


@pytest.mark.parametrize(("extent", "count"), [(PICTURE, 3), (WIDE, 3), (VOLUME, 3), (VOLUME, 6)])
def test_patches_lie_in_the_image_and_apart_in_a_thousand_draws(
    extent: tuple[int, int, int], count: int
) -> None:
    """The voxels around a patch belong to no other one."""
    boxes = draw(extent, 1000, count)
    for starts, sizes in zip(boxes["start"], boxes["size"], strict=True):
        assert (starts >= 0).all() and (starts + sizes <= extent).all()
        for k in range(count):
            around = np.maximum(starts[k] - 1, 0), starts[k] + sizes[k] + 1
            for j in range(k):
                overlap = np.minimum(around[1], starts[j] + sizes[j]) - np.maximum(
                    around[0], starts[j]
                )
                assert (overlap <= 0).any()
    assert (boxes["source_start"] >= 0).all()
    assert (boxes["source_start"] + boxes["size"] <= extent).all()


def test_areas_of_patches_of_pictures_are_uniform_and_aspects_log_uniform() -> None:
    size = draw((1, 400, 400), 4000, 1)["size"][:, 0].astype(float)
    assert (size[:, 0] == 1).all()
    area = size[:, 1] * size[:, 2] / 400**2
    assert 0.0195 < area.min() and area.max() < 0.1525
    assert area.mean() == pytest.approx(0.085, abs=0.003)
    assert area.std() == pytest.approx(0.13 / np.sqrt(12), rel=0.04)
    aspect = np.log(size[:, 1] / size[:, 2]) / np.log(1 / 0.3)
    assert np.abs(aspect).max() < 1.03
    assert aspect.mean() == pytest.approx(0, abs=0.05)
    assert aspect.std() == pytest.approx(1 / np.sqrt(3), rel=0.04)


def test_a_patch_longer_than_the_picture_keeps_its_area() -> None:
    settings = replace(SETTINGS, area=(0.15, 0.15))
    size = draw((1, 40, 400), 2000, 1, settings=settings)["size"][:, 0].astype(float)
    assert size[:, 1].max() == 40
    area = size[:, 1] * size[:, 2] / (40 * 400)
    np.testing.assert_allclose(area, 0.15, rtol=0.03)


def test_edges_of_patches_of_volumes_are_uniform_and_independent() -> None:
    parts = draw((200, 300, 400), 4000, 1)["size"][:, 0] / np.array([200, 300, 400])
    assert parts.min() > 0.147 and parts.max() < 0.453
    np.testing.assert_allclose(parts.mean(0), 0.3, atol=0.007)
    np.testing.assert_allclose(parts.std(0), 0.3 / np.sqrt(12), rtol=0.04)
    assert np.abs(np.corrcoef(parts.T) - np.eye(3)).max() < 0.06


@pytest.mark.parametrize("extent", [PICTURE, VOLUME])
def test_places_are_spread_over_the_image(extent: tuple[int, int, int]) -> None:
    """The place of a box, from one border to the other, is uniform; that of its source as well."""
    boxes = draw(extent, 4000, 1)
    for name in ("start", "source_start"):
        free = np.array(extent) - boxes["size"][:, 0]
        place = (boxes[name][:, 0] + 0.5) / (free + 1)
        for axis in range(3):
            if extent[axis] > 1:
                assert place[:, axis].mean() == pytest.approx(0.5, abs=0.02)
                assert place[:, axis].std() == pytest.approx(1 / np.sqrt(12), rel=0.05)
    assert np.abs((boxes["start"] - boxes["source_start"])[:, 0, 1:]).mean() > 4


@pytest.mark.parametrize("source", [Source.OTHER, Source.OTHER_SAME_PLACE])
def test_sources_are_other_images_each_as_often(source: Source) -> None:
    counts = np.zeros((5, 5), int)
    for seed in range(400):
        boxes = draw(VOLUME, 5, 3, seed, source)
        np.add.at(counts, (boxes["image"], boxes["source_image"]), 1)
        if source is Source.OTHER_SAME_PLACE:
            assert (boxes["source_start"] == boxes["start"]).all()
    assert (np.diag(counts) == 0).all()
    others = counts[~np.eye(5, dtype=bool)]
    assert np.abs(others - 300).max() < 5 * np.sqrt(300 * 0.75)


def test_patches_of_one_image_may_come_from_several_others() -> None:
    sources = draw(VOLUME, 6, 3)["source_image"]
    assert len(set(sources[0])) > 1 or len(set(sources[1])) > 1


def test_own_patches_come_from_another_place() -> None:
    boxes = draw(VOLUME, 500, 2, source=Source.OWN)
    assert (boxes["source_image"] == boxes["image"]).all()
    assert (boxes["source_start"] != boxes["start"]).any(-1).all()


@pytest.mark.parametrize("extent", [PICTURE, VOLUME])
def test_half_of_a_patch_lies_in_the_bodies(extent: tuple[int, int, int]) -> None:
    """Bodies fill one side of an image, of half of them the other one."""
    bodies = torch.zeros(40, *extent)
    middle = extent[2] // 2
    bodies[::2, :, :, :middle] = 1
    bodies[1::2, :, :, middle:] = 1
    boxes = draw(extent, 40, 2, bodies=bodies)
    free = draw(extent, 40, 2)
    for found, least in ((boxes, 0.5), (free, 0.0)):
        shares = []
        for i in range(40):
            for k in range(2):
                size, source = found["size"][i, k], found["source_image"][i, k]
                for image, name in ((i, "start"), (source, "source_start")):
                    box = painted(extent, found[name][i, k], size)
                    shares.append(bodies[image].numpy()[box].mean())
        assert min(shares) >= least - 1e-6
    assert min(shares) < 0.1  # without the bodies patches lie anywhere


def test_where_no_place_is_in_the_body_the_best_one_is_taken() -> None:
    """A body of a corner that no patch half fills: patches come near it, and stay apart."""
    bodies = torch.zeros(200, *VOLUME)
    bodies[:, :5, :5, :5] = 1
    covered = []
    for given in (bodies, None):
        boxes = draw(VOLUME, 200, 1, bodies=given)
        inside = (5 - boxes["start"]).clip(0, boxes["size"]).prod(-1) / boxes["size"].prod(-1)
        covered.append(inside.mean())
    assert covered[0] > 8 * covered[1]


def test_many_patches_become_smaller_until_they_fit() -> None:
    boxes = draw((1, 64, 64), 60, 12)
    assert boxes["size"].prod(-1).sum(-1).max() < 64 * 64
    few = draw((1, 64, 64), 60, 2)
    assert few["size"].prod(-1).mean() > boxes["size"].prod(-1).mean()


def test_more_than_fit_are_refused() -> None:
    settings = replace(SETTINGS, area=(0.4, 0.8))
    with pytest.raises(ScreenerError, match="3 patches do not fit.*pretext.medmix.area"):
        draw((1, 32, 32), 2, 3, settings=settings)


def test_one_image_has_no_other() -> None:
    with pytest.raises(ScreenerError, match="the batch has one: set pretext.images_per_step"):
        draw(VOLUME, 1, 1)
    assert draw(VOLUME, 1, 1, source=Source.OWN)["source_image"] == 0


def test_the_generator_decides() -> None:
    first, again, other = (draw(VOLUME, 4, 3, seed) for seed in (1, 1, 2))
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in ("start", "size"))
