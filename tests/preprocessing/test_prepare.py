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


def stock_nnunet(path: Path, settings: PreprocessingSettings) -> np.ndarray:
    """What stock nnU-Net makes of an image file under a plan like ours, (z, y, x)."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    functions = {"data": RESAMPLING_DATA, "seg": RESAMPLING_SEG}
    functions["probabilities"] = RESAMPLING_PROBABILITIES
    configuration = {
        "data_identifier": "stock",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing": list(settings.spacing),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "architecture": {
            "network_class_name": "A",
            "arch_kwargs": {},
            "_kw_requires_import": [],
        },
        **{f"resampling_fn_{k}": v["name"] for k, v in functions.items()},
        **{f"resampling_fn_{k}_kwargs": v["kwargs"] for k, v in functions.items()},
    }
    low, high = settings.hu_clip
    intensities = {"mean": MEAN, "std": STD, "percentile_00_5": low, "percentile_99_5": high}
    plans = {
        "dataset_name": "Dataset001_A",
        "plans_name": "A",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": intensities},
        "configurations": {"3d_fullres": configuration},
    }
    manager = PlansManager(plans)
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0}}
    data, _, _ = DefaultPreprocessor(verbose=False).run_case(
        [str(path)], None, manager, manager.get_configuration("3d_fullres"), description
    )
    return data[0]


def check_against_stock(
    raw_file: Path, settings: PreprocessingSettings, write_image: Writer, folder: Path
) -> None:
    raw = read_image(raw_file, "a")
    prepared = prepare_image(raw, settings)
    write_case(folder, "a", prepared)
    stored = CaseFolder(folder).read("a", "hu").astype(np.float32)
    box = raw.array[prepared.frame.slices]
    wanted = stock_nnunet(write_image(box, raw.spacing, name="box_0000.nii.gz"), settings)
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
