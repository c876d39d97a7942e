"""Crops of prepared cases for the preview: parts of what is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from screener_nnu.errors import CaseError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder, write_case
from screener_nnu.preprocessing.prepare import Frame, PreparedImage
from screener_nnu.preprocessing.reading import Geometry
from screener_nnu.synthetic.preview_crops import read_crops

GEOMETRY = Geometry((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1), "LPS")


def store(folder: Path, name: str, image: np.ndarray, body: np.ndarray) -> None:
    shape = tuple(body.shape)
    box = tuple((0, n) for n in shape)
    frame = Frame(shape, box, shape, shape, (1.0, 1.0, 1.0), GEOMETRY)  # type: ignore[arg-type]
    settings = PreprocessingSettings((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), (-100.0, 100.0))
    write_case(folder, name, PreparedImage(image, image, body, frame, settings))


def test_a_crop_is_a_part_of_the_equalised_image_with_half_of_it_body(world: Any) -> None:
    plan = world.plan()
    names = plan.settings.split.train[:3]
    images, bodies = read_crops(world.cases, names, plan)
    z, y, x = plan.settings.crop_size
    assert images.shape == (3, 1, z, y, x) and bodies.shape == (3, z, y, x)
    assert (bodies.float().mean(dim=(1, 2, 3)) >= 0.5).all()
    stored = CaseFolder(world.cases)
    for name, image, body in zip(names, images[:, 0].numpy(), bodies.numpy(), strict=True):
        whole = stored.read(name, "equalised").astype(np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(whole, image.shape)
        places = np.argwhere(windows[..., 0, 0, 0] == image[0, 0, 0])
        (place,) = [p for p in places if np.array_equal(windows[tuple(p)], image)]
        cut = tuple(slice(a, a + n) for a, n in zip(place, image.shape, strict=True))
        assert np.array_equal(stored.read(name, "body")[cut] > 0, body)
    again, _ = read_crops(world.cases, names, plan)
    assert (again == images).all()


def test_finer_cases_are_resized_to_the_grid_of_the_plan(world: Any) -> None:
    plan = world.plan(plans="Fine")
    folder = world.preprocessed / plan.settings.data_identifier
    images, bodies = read_crops(folder, plan.settings.split.train[:2], plan)
    assert images.shape[2:] == bodies.shape[1:] == plan.settings.crop_size
    assert 0 <= float(images.min()) and float(images.max()) <= 1


def test_pictures_are_shown_whole_and_smaller_ones_padded(world: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.random((3, 1, *size)).astype(np.float32) for size in ((20, 30), (24, 26))]
    for name, picture in zip("ab", pictures, strict=True):
        store(tmp_path, name, picture, np.ones(picture.shape[1:], np.uint8))
    plan = world.plan(
        'preprocessing.modality="picture"',
        "preprocessing.spacing=[1.0, 1.0, 1.0]",
        "preprocessing.storage_spacing=[1.0, 1.0, 1.0]",
    )
    images, bodies = read_crops(tmp_path, "ab", plan)
    assert images.shape == (2, 3, 1, 24, 30)
    for picture, image, body in zip(pictures, images.numpy(), bodies.numpy(), strict=True):
        rows, columns = picture.shape[2:]
        np.testing.assert_allclose(image[..., :rows, :columns], picture, atol=1e-3)
        assert body[:, :rows, :columns].all() and body.sum() == rows * columns
        assert not image[..., rows:, :].any() and not image[..., columns:].any()
    small = plan.with_settings(plan.settings.override(["pretext.crop_size=[1, 8, 10]"]))
    assert read_crops(tmp_path, "ab", small)[0].shape == (2, 3, 1, 8, 10)


def test_a_case_that_is_not_there(world: Any) -> None:
    with pytest.raises(CaseError, match="nobody"):
        read_crops(world.cases, ["nobody"], world.plan())
