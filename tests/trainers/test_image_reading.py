"""Images as they are stored: a box of one size with enough body, whole pictures, and pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder, write_case
from screener_nnu.preprocessing.prepare import Frame, PreparedImage
from screener_nnu.preprocessing.reading import Geometry
from screener_nnu.sampling.crops import voxels_per_crop
from screener_nnu.sampling.neighbours import DIRECTIONS_2D
from screener_nnu.sampling.randomness import numpy_generator
from screener_nnu.synthetic.cases import read_hu_and_body
from screener_nnu.trainers.image_reading import ImageReader, image_reader, on_grid

CPU = torch.device("cpu")
GEOMETRY = Geometry((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1), "LPS")


def store(folder: Path, name: str, image: np.ndarray, body: np.ndarray) -> None:
    shape = tuple(body.shape)
    box = tuple((0, n) for n in shape)
    frame = Frame(shape, box, shape, shape, (1.0, 1.0, 1.0), GEOMETRY)  # type: ignore[arg-type]
    settings = PreprocessingSettings((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (-100.0, 100.0))
    write_case(folder, name, PreparedImage(image, image, body, frame, settings))


def test_an_image_is_a_part_of_the_equalised_one_with_a_quarter_of_body(world: Any) -> None:
    plan, stored = world.plan(), CaseFolder(world.cases)
    size = plan.settings.crop_size
    for index, name in enumerate(plan.settings.split.train[:3]):
        sample = image_reader(plan, world.cases, [name], "test", size)[index]
        images, bodies = on_grid([sample], size, CPU)
        assert images.shape == (1, 1, *size) and bodies.shape == (1, 1, *size)
        assert bodies.float().mean() >= 0.25
        image, body = images[0, 0].numpy(), bodies[0, 0].numpy()
        whole = stored.read(name, "equalised").astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(whole, image.shape)
        places = np.argwhere(windows[..., 0, 0, 0] == image[0, 0, 0])
        (place,) = [p for p in places if np.array_equal(windows[tuple(p)], image)]
        cut = tuple(slice(a, a + n) for a, n in zip(place, image.shape, strict=True))
        assert np.array_equal(stored.read(name, "body")[cut] > 0, body)
        again = image_reader(plan, world.cases, [name], "test", size)[index]
        assert torch.equal(again.image, sample.image)


def test_finer_cases_are_resized_to_the_grid_of_the_plan(world: Any) -> None:
    plan = world.plan(plans="Fine")
    folder = world.preprocessed / plan.settings.data_identifier
    size = plan.settings.crop_size
    sample = image_reader(plan, folder, plan.settings.split.train, "test", size)[0]
    grid = plan.settings.preprocessing
    covered = voxels_per_crop(size, grid.spacing, grid.storage_spacing)
    assert tuple(sample.image.shape) == tuple(map(round, covered)) > size
    images, bodies = on_grid([sample], size, CPU)
    assert images.shape == bodies.shape == (1, 1, *size)
    assert 0 <= float(images.min()) and float(images.max()) <= 1


def test_pictures_are_read_whole_and_smaller_ones_padded(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).random((3, 1, 20, 26)).astype(np.float32)
    store(tmp_path, "a", picture, np.ones(picture.shape[1:], np.uint8))
    sample = ImageReader(tmp_path, ("a",), 0, "test", (1, 24, 30))[0]
    images, bodies = on_grid([sample], (1, 24, 30), CPU)
    np.testing.assert_allclose(images[0, ..., :20, :26].numpy(), picture, atol=1e-3)
    assert bodies[..., :20, :26].all() and bodies.sum() == 20 * 26
    assert not images[..., 20:, :].any() and not images[..., 26:].any()


def test_a_dark_picture_is_read_as_it_is_and_air_is_not(tmp_path: Path) -> None:
    """Of crops with little body the one with most is taken."""
    body = np.zeros((1, 20, 20), np.uint8)
    body[0, :6, :6] = 1
    store(tmp_path, "dark", body.astype(np.float32), body)
    reader = ImageReader(tmp_path, ("dark",), 0, "test", (1, 20, 20))
    assert reader.read("dark", numpy_generator(0, "test", 0)).body.sum() == 36
    small = ImageReader(tmp_path, ("dark",), 0, "test", (1, 8, 8))
    shares = [small.read("dark", numpy_generator(0, "test", n)).body.sum() for n in range(10)]
    assert min(shares) >= 1 and sum(shares) > 100
    store(tmp_path, "air", body.astype(np.float32), 0 * body)
    with pytest.raises(CaseError, match="air.*20 crops of it hold no body"):
        reader.read("air", numpy_generator(0, "test", 0))


def test_pairs_lie_as_they_say(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:40, :50]
    image = (np.stack([rows, columns, rows * 0]) / 100).astype(np.float32)[:, None]
    store(tmp_path, "a", image, np.ones((1, 40, 50), np.uint8))
    reader = ImageReader(tmp_path, ("a",), 0, "test", (1, 16, 16), pairs=True)
    for index in range(20):
        sample = reader[index]
        moved = sample.neighbour[:2, 0, 0, 0] - sample.image[:2, 0, 0, 0]
        step = DIRECTIONS_2D[sample.direction][1:]
        assert [int(v) for v in torch.sign(moved.round(decimals=2))] == list(step)


def test_a_case_that_is_not_there_and_patches_without_room(world: Any) -> None:
    plan = world.plan()
    with pytest.raises(CaseError, match="nobody"):
        reader = image_reader(plan, world.cases, ["nobody"], "test", plan.settings.crop_size)
        reader.read("nobody", numpy_generator(0, "test", 0))
    names = plan.settings.split.train
    large = image_reader(plan, world.cases, names, "test", (200, 200, 200), pairs=True)
    with pytest.raises(CaseError, match=f"{names[0]}.*no room for two patches"):
        large.read(names[0], numpy_generator(0, "test", 0))
    with pytest.raises(ScreenerError, match="no case in .* can be used"):
        large[0]


def test_values_are_read_on_the_grid_of_the_plan_with_their_body(world: Any) -> None:
    plan = world.plan(plans="Fine")
    folder = world.preprocessed / plan.settings.data_identifier
    size, name = plan.settings.crop_size, plan.settings.split.train[0]
    stored = CaseFolder(folder)
    hu, body = read_hu_and_body(stored, name)
    assert stored.shape(name, "body") != stored.shape(name, "hu")
    sample = image_reader(plan, folder, [name], "test", size, reads="hu")[0]
    images, bodies = on_grid([sample], size, CPU)
    assert images.shape == bodies.shape == (1, 1, *size)
    air = float(images.min())
    padded = [np.pad(a, [(0, 20)] * 3, constant_values=v) for a, v in ((hu, air), (body, False))]
    windows = np.lib.stride_tricks.sliding_window_view(padded[0], size)
    found = [
        place
        for place in np.argwhere(windows[..., 0, 0, 0] == float(images[0, 0, 0, 0, 0]))
        if np.array_equal(windows[tuple(place)], images[0, 0].numpy())
    ]
    cuts = [tuple(slice(a, a + n) for a, n in zip(p, size, strict=True)) for p in found]
    assert any(np.array_equal(padded[1][cut], bodies[0, 0].numpy()) for cut in cuts)
