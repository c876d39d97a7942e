from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder, write_case
from screener_nnu.preprocessing.modality import MODALITIES, MR, PICTURE
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.preprocessing.prepare import Frame, prepare_image
from screener_nnu.preprocessing.reading import read_image
from screener_nnu.preprocessing.resampling import (
    RESAMPLING_DATA,
    RESAMPLING_PROBABILITIES,
    RESAMPLING_SEG,
)

Writer = Callable[..., Path]
Person = Callable[..., np.ndarray]
MEAN, STD = -31.7, 213.4


def stock_nnunet(path: Path, settings: PreprocessingSettings, channels: int = 1) -> np.ndarray:
    """What stock nnU-Net makes of an image file under a plan like ours, (channels, z, y, x)."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    modality = MODALITIES[settings.modality]
    pictures = modality.name == PICTURE
    functions = {"data": RESAMPLING_DATA, "seg": RESAMPLING_SEG}
    functions["probabilities"] = RESAMPLING_PROBABILITIES
    configuration = {
        "data_identifier": "stock",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": list(settings.spacing)[1 if pictures else 0 :],
        "normalization_schemes": [modality.scheme] * channels,
        "use_mask_for_norm": [False] * channels,
        "architecture": {
            "network_class_name": "A",
            "arch_kwargs": {},
            "_kw_requires_import": [],
        },
        **{f"resampling_fn_{k}": v["name"] for k, v in functions.items()},
        **{f"resampling_fn_{k}_kwargs": v["kwargs"] for k, v in functions.items()},
    }
    low, high = settings.hu_clip
    bounds = {"percentile_00_5": low, "percentile_99_5": high}
    intensities = {str(c): {"mean": MEAN + c, "std": STD + c, **bounds} for c in range(channels)}
    plans = {
        "dataset_name": "Dataset001_A",
        "plans_name": "A",
        "image_reader_writer": "NaturalImage2DIO" if pictures else "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": intensities,
        "configurations": {modality.configuration: configuration},
    }
    manager = PlansManager(plans)
    names = {str(c): modality.title for c in range(channels)}
    description = {"channel_names": names, "labels": {"background": 0}}
    block = manager.get_configuration(modality.configuration)
    data, _, _ = DefaultPreprocessor(verbose=False).run_case(
        [str(path)], None, manager, block, description
    )
    return data


def check_against_stock(
    raw_file: Path, settings: PreprocessingSettings, write_image: Writer, folder: Path
) -> None:
    raw = read_image(raw_file, "a")
    prepared = prepare_image(raw, settings)
    write_case(folder, "a", prepared)
    stored = CaseFolder(folder).read("a", "hu").astype(np.float32)
    box = raw.array[prepared.frame.slices]
    wanted = stock_nnunet(write_image(box, raw.spacing, name="box_0000.nii.gz"), settings)[0]
    assert stored.shape == wanted.shape == prepared.frame.grid_shape
    np.testing.assert_allclose((prepared.hu - MEAN) / STD, wanted, atol=2e-3 / STD + 1e-5)
    # Rounding to whole HU is all that storing costs.
    np.testing.assert_allclose((stored - MEAN) / STD, wanted, atol=0.502 / STD)


def test_stored_hu_equals_stock_nnunet(
    write_image: Writer, person: Person, settings: PreprocessingSettings, tmp_path: Path
) -> None:
    file = write_image(person((25, 61, 73)), (5.0, 1.3, 1.7))
    check_against_stock(file, settings, write_image, tmp_path / "cases")


@pytest.mark.skipif(
    "SCREENER_TEST_DATA" not in os.environ, reason="SCREENER_TEST_DATA names no raw datasets"
)
def test_real_scans_equal_stock_nnunet(
    write_image: Writer, settings: PreprocessingSettings, tmp_path: Path
) -> None:
    folders = sorted(Path(os.environ["SCREENER_TEST_DATA"]).glob("Dataset*/imagesTr"))
    assert folders
    for folder in folders:
        file = sorted(folder.glob("*_0000.nii.gz"))[0]
        check_against_stock(file, settings, write_image, tmp_path / "cases")
        body = CaseFolder(tmp_path / "cases").read("a", "body")
        assert 0.1 < body.mean() < 0.95


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colours"])
@pytest.mark.parametrize("size", [(), (50, 41)], ids=["by spacing", "of one size"])
def test_stored_pictures_equal_stock_nnunet(
    channels: int, size: tuple[int, ...], tmp_path: Path
) -> None:
    """Of the median size, a picture that is resized to one size is what stock nnU-Net makes."""
    spacing = (999.0, 37 / 50, 53 / 41)
    settings = PreprocessingSettings(
        spacing, spacing, (0.5, 240.0), (0.0, 255.0), 0.06, modality=PICTURE, picture_size=size
    )
    pixels = np.random.default_rng(0).integers(0, 256, (channels, 37, 53)).astype(np.uint8)
    path = tmp_path / "a_0000.png"
    write_picture(pixels, path)
    prepared = prepare_image(read_image(path, "a", PICTURE), settings)
    write_case(tmp_path / "cases", "a", prepared)
    stored = CaseFolder(tmp_path / "cases").read("a", "hu").astype(np.float32)
    wanted = stock_nnunet(path, settings, channels)
    assert wanted.shape == (channels, 1, 50, 41) and prepared.frame.grid_shape == (1, 50, 41)
    for channel in range(channels):
        for image, error in ((prepared.hu, 2e-3), (stored, 0.063)):
            own = image if channels == 1 else image[channel]
            normalised = (own - MEAN - channel) / (STD + channel)
            np.testing.assert_allclose(normalised, wanted[channel], atol=error / STD + 1e-5)


@pytest.mark.parametrize(
    ("spacing", "margin"), [((3.0, 2.0, 2.5), 2), ((4.0, 3.1, 3.0), 0)], ids=["as is", "resampled"]
)
def test_stored_mr_equals_stock_nnunet(
    spacing: tuple[float, float, float], margin: int, write_image: Writer, tmp_path: Path
) -> None:
    """A scan is standardised over its box of what is not 0, whatever the body box is then."""
    array = np.random.default_rng(1).integers(300, 900, (20, 30, 34))
    path = write_image(np.pad(array, margin).astype(np.uint16))
    settings = PreprocessingSettings(
        spacing, spacing, (-1e4, 1e4), (-2.0, 5.0), 0.1, body_block_mm=1.0, modality=MR
    )
    raw = read_image(path, "a", MR)
    prepared = prepare_image(raw, settings)
    write_case(tmp_path / "cases", "a", prepared)
    stored = CaseFolder(tmp_path / "cases").read("a", "hu").astype(np.float32)
    wanted = stock_nnunet(path, settings)[0]
    # The body box leaves some air around: stock nnU-Net crops to what is not 0.
    inner = tuple(slice(margin - box.start, None) for box in prepared.frame.slices)
    inner = tuple(slice(i.start, i.start + n) for i, n in zip(inner, wanted.shape, strict=True))
    np.testing.assert_allclose(prepared.hu[inner], wanted, atol=1e-4)
    np.testing.assert_allclose(stored[inner], wanted, atol=2e-3)
    assert abs(wanted.mean()) < 0.05 and wanted.std() > 0.4


def test_grids_cover_the_box(
    write_image: Writer, person: Person, settings: PreprocessingSettings
) -> None:
    raw = read_image(write_image(person()), "a")
    prepared = prepare_image(raw, settings)
    frame = prepared.frame
    assert prepared.hu.shape == frame.grid_shape
    assert prepared.equalised.shape == prepared.body.shape == frame.storage_shape
    for n, size, mm in zip(frame.grid_shape, settings.spacing, frame.box_mm, strict=True):
        assert abs(n * size - mm) <= size / 2 + 1e-6
    assert [a.dtype for a in (prepared.hu, prepared.equalised, prepared.body)] == [
        np.float32,
        np.float32,
        np.uint8,
    ]
    low, high = settings.hu_clip
    assert low <= prepared.hu.min() and prepared.hu.max() <= high
    assert 0 <= prepared.equalised.min() and prepared.equalised.max() <= 1
    assert set(np.unique(prepared.body)) == {0, 1}
    assert frame.raw_shape == raw.shape and frame.geometry == raw.geometry
    assert Frame.from_dict(json.loads(json.dumps(frame.to_dict()))) == frame


def test_equal_spacings_give_one_grid(
    write_image: Writer, person: Person, settings: PreprocessingSettings
) -> None:
    same = replace(settings, storage_spacing=settings.spacing)
    prepared = prepare_image(read_image(write_image(person()), "a"), same)
    assert prepared.hu.shape == prepared.equalised.shape == prepared.body.shape


def test_orientation_of_the_file_changes_nothing(
    write_image: Writer, person: Person, settings: PreprocessingSettings
) -> None:
    array = person()
    first = prepare_image(read_image(write_image(array), "a"), settings)
    flipped = np.ascontiguousarray(array[:, ::-1, ::-1].transpose(2, 0, 1))
    # File axes x, y, z of `flipped` are the array's flipped y, z and flipped x.
    direction = np.array([[0, 0, -1], [-1, 0, 0], [0, 1, 0]])
    path = write_image(flipped, (2.5, 3.0, 2.0), direction, name="b.nrrd")
    second = prepare_image(read_image(path, "b"), settings)
    np.testing.assert_array_equal(first.hu, second.hu)
    np.testing.assert_array_equal(first.equalised, second.equalised)
    np.testing.assert_array_equal(first.body, second.body)


def test_body_threshold_outside_the_window_is_refused(
    write_image: Writer, person: Person, settings: PreprocessingSettings
) -> None:
    raw = read_image(write_image(person()), "a")
    with pytest.raises(ScreenerError, match="body_threshold"):
        prepare_image(raw, replace(settings, body_threshold=-1200.0))
