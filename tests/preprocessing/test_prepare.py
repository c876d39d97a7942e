from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization
from scipy import ndimage
from skimage.transform import resize

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder, write_case
from screener_nnu.preprocessing.mapping import mask_to_input_geometry, to_input_geometry
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


def pixels(rows: int, columns: int, colours: int = 1, seed: int = 0) -> np.ndarray:
    """A smooth picture (C, H, W), uint8, black around a rectangle that is 5 from every side."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(60, 240, (colours, 6, 7))
    fine = ndimage.zoom(coarse, (1, (rows - 10) / 6, (columns - 10) / 7), order=1)
    whole = np.zeros((colours, rows, columns), np.uint8)
    whole[:, 5 : rows - 5, 5 : columns - 5] = fine.round()
    return whole


def of_pictures(**values: Any) -> PreprocessingSettings:
    spacing = (999.0, 2.0, 3.0)
    usual: dict[str, Any] = {"equalisation": "none", "body_threshold": 0.06, "picture_size": ()}
    return PreprocessingSettings(
        spacing, spacing, (0.0, 255.0), (0.0, 255.0), modality="picture", **{**usual, **values}
    )


def resized(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """As torch does, half-pixel centres, without smoothing."""
    image = torch.from_numpy(picture.astype(np.float32))[None]
    return torch.nn.functional.interpolate(image, (rows, columns), mode="bilinear")[0].numpy()


@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (of_pictures(picture_size=(48, 64)), (48, 64)),
        # The box has 70 x 150 pixels: the columns decide, or the rows.
        (of_pictures(picture_size=(48, 64), keep_aspect=True), (30, 64)),
        (of_pictures(picture_size=(28, 96), keep_aspect=True), (28, 60)),
        (of_pictures(), (35, 50)),
    ],
)
def test_pictures_are_resized_as_torch_and_scikit_image_do(
    tmp_path: Path, settings: PreprocessingSettings, size: tuple[int, int], colours: int
) -> None:
    picture = pixels(80, 160, colours)
    write_picture(picture, tmp_path / "a.png")
    raw = read_image(tmp_path / "a.png", "a", "picture")
    np.testing.assert_array_equal(raw.array.reshape(picture.shape), picture)
    prepared = prepare_image(raw, settings)
    frame = prepared.frame
    assert frame.box == ((0, 1), (5, 75), (5, 155)) and frame.raw_shape == (1, 80, 160)
    assert frame.grid_shape == frame.storage_shape == (1, *size) == prepared.body.shape
    assert prepared.body.all() and prepared.hu.dtype == np.float32
    assert prepared.hu.shape == ((1, *size) if colours == 1 else (3, 1, *size))
    inside = picture[:, 5:75, 5:155]
    found = prepared.hu.reshape(colours, *size)
    np.testing.assert_allclose(found, resized(inside, *size), atol=1e-3)
    np.testing.assert_allclose(prepared.equalised, prepared.hu / 255, atol=1e-6)
    by_scikit_image = [
        resize(one.astype(np.float32), size, order=1, mode="edge", anti_aliasing=False)
        for one in inside
    ]
    np.testing.assert_allclose(found, by_scikit_image, atol=0.05)


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_maps_of_pictures_have_the_size_of_the_file(tmp_path: Path, keep_aspect: bool) -> None:
    picture = pixels(70, 141)
    write_picture(picture, tmp_path / "a.png")
    settings = of_pictures(picture_size=(32, 64), keep_aspect=keep_aspect)
    raw = read_image(tmp_path / "a.png", "a", "picture")
    prepared = prepare_image(raw, settings)
    score = to_input_geometry(prepared.hu, prepared.frame, -7.0, prepared.body)
    body = mask_to_input_geometry(prepared.body, prepared.frame)
    for image in (score, body):
        assert image.GetSize() == (141, 70, 1) and image.GetSpacing() == (1, 1, 999)
        assert image.GetOrigin() == (0, 0, 0)
    values, inside = sitk.GetArrayFromImage(score)[0], sitk.GetArrayFromImage(body)[0]
    np.testing.assert_array_equal(inside > 0, picture[0] > 0)
    assert (values[inside == 0] == -7).all()
    # Half of a picture's details are lost on the way there and back; its places are not.
    np.testing.assert_allclose(values[inside > 0], picture[0][inside > 0], atol=12)
    assert np.corrcoef(values[inside > 0], picture[0][inside > 0])[0, 1] > 0.995


def test_sixteen_bits_keep_their_values(tmp_path: Path) -> None:
    picture = pixels(40, 50).astype(np.uint16) * 16
    write_picture(picture, tmp_path / "a.png")
    raw = read_image(tmp_path / "a.png", "a", "picture")
    assert raw.array.max() == picture.max() > 255
    sixteen = replace(of_pictures(), hu_window=(0.0, 4095.0), hu_clip=(0.0, 4095.0))
    prepared = prepare_image(raw, replace(sixteen, spacing=(999.0, 1.0, 1.0)))
    np.testing.assert_allclose(prepared.hu[0], picture[0, 5:-5, 5:-5], atol=0.01)
    with pytest.raises(CaseError, match="whose white is 255"):
        prepare_image(raw, of_pictures())


def test_equalisation_of_colours_keeps_their_proportions(tmp_path: Path) -> None:
    picture = pixels(90, 120, 3)
    write_picture(picture, tmp_path / "a.png")
    raw = read_image(tmp_path / "a.png", "a", "picture")
    settings = of_pictures(equalisation="adaptive", clahe_tiles=2)
    plain, made = prepare_image(raw, of_pictures()), prepare_image(raw, settings)
    assert abs(made.equalised - plain.equalised).max() > 0.05
    brightest = made.equalised.max(axis=0)
    inside = (brightest > 0.05) & (brightest < 1)
    share = made.equalised / np.maximum(brightest, 1e-6)
    expected = plain.equalised / plain.equalised.max(axis=0)
    np.testing.assert_allclose(share[:, inside], expected[:, inside], atol=1e-4)


@pytest.mark.parametrize("size", [(48,), (1, 48, 48)])
def test_picture_size_has_two_numbers(size: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rows and columns of pictures"):
        of_pictures(picture_size=size)


@pytest.mark.parametrize("modality", ["ct", "mr"])
def test_scans_have_no_picture_size(settings: PreprocessingSettings, modality: str) -> None:
    with pytest.raises(ValueError, match="rows and columns of pictures"):
        replace(settings, modality=modality, picture_size=(32, 32))


def test_mr_equals_stock_nnunet_on_the_box_of_the_person(
    write_image: Writer, person: Person, settings: PreprocessingSettings, tmp_path: Path
) -> None:
    """Standardised in the box of what is not 0, as stock nnU-Net does before it resamples."""
    hu = person((25, 61, 73))
    array = np.where(hu > -400, 500 + hu, 0).clip(0)
    raw = read_image(write_image(array, (5.0, 1.3, 1.7)), "a", "mr")
    mr = replace(settings, modality="mr", hu_clip=(-1000.0, 1000.0), body_threshold=0.1)
    prepared = prepare_image(raw, mr)
    cropped, _, box = crop_to_nonzero(array[None].astype(np.float32))
    scheme = ZScoreNormalization(use_mask_for_norm=False, intensityproperties={})
    standardised = np.full_like(array, np.nan)
    standardised[tuple(slice(a, b) for a, b in box)] = scheme.run(cropped, None)[0]
    crop = standardised[prepared.frame.slices]
    inside = ~np.isnan(crop)
    np.testing.assert_allclose(raw.array[prepared.frame.slices][inside], crop[inside], atol=2e-5)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(raw.array[prepared.frame.slices])[None, None],
        prepared.frame.grid_shape,
        mode="trilinear",
    )[0, 0].numpy()
    np.testing.assert_allclose(prepared.hu, expected, atol=1e-4)
    write_case(tmp_path, "a", prepared)
    stored = CaseFolder(tmp_path).read("a", "hu")
    assert stored.dtype == np.float16
    np.testing.assert_allclose(stored, expected, atol=2e-3)
