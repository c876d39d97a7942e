"""Images in memory become the scans that the same images on disk become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError
from screener_nnu.inference.api import as_raw_image, load_predictor
from screener_nnu.preprocessing.reading import RawImage, read_image


def values(shape: tuple[int, int, int] = (7, 11, 13)) -> np.ndarray:
    """HU, different everywhere, so that no axis can be mistaken."""
    return (np.arange(np.prod(shape)) * 37 % 2000 - 1000).reshape(shape).astype(np.int16)


def turn(degrees: float) -> np.ndarray:
    a, b = np.deg2rad([degrees, -0.6 * degrees])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_x @ about_z


def assert_same(a: RawImage, b: RawImage) -> None:
    np.testing.assert_array_equal(a.array, b.array)
    assert a.array.dtype == np.float32
    np.testing.assert_allclose(a.spacing, b.spacing, rtol=1e-5)
    assert a.geometry.size == b.geometry.size
    assert a.geometry.orientation == b.geometry.orientation
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(
            getattr(a.geometry, name), getattr(b.geometry, name), rtol=1e-5, atol=1e-5
        )


AFFINES = {
    "ras": np.diag([2.0, 2.5, 3.0]),
    "las": np.diag([-2.0, 2.5, 3.0]),
    "lps": np.diag([-2.0, -2.5, 3.0]),
    "all flipped": np.diag([-2.0, -2.5, -3.0]),
    "permuted": np.array([[0, 0, 3.0], [2.0, 0, 0], [0, -2.5, 0]]),
}


@pytest.mark.parametrize("kind", AFFINES)
@pytest.mark.parametrize("degrees", [0.0, 17.0])
def test_nibabel_image_equals_its_file(tmp_path: Path, kind: str, degrees: float) -> None:
    affine = np.eye(4)
    affine[:3, :3] = turn(degrees) @ AFFINES[kind]
    affine[:3, 3] = (12.5, -40.0, 90.25)
    image = nibabel.Nifti1Image(values(), affine)
    nibabel.save(image, tmp_path / "a.nii.gz")
    from_file = read_image(tmp_path / "a.nii.gz", "a")
    assert_same(as_raw_image(image, case="a"), from_file)
    assert_same(as_raw_image(nibabel.load(tmp_path / "a.nii.gz")), from_file)
    # With a fourth axis of one entry, as some tools write it, and scaled values.
    four = nibabel.Nifti1Image(values()[..., None], affine)
    assert_same(as_raw_image(four), from_file)


def test_scaled_nibabel_image(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image((values() + 1000).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(1, -1000)
    nibabel.save(image, tmp_path / "a.nii.gz")
    path = tmp_path / "a.nii.gz"
    assert_same(as_raw_image(nibabel.load(path)), read_image(path, "a"))


@pytest.mark.parametrize("degrees", [0.0, 17.0])
def test_simpleitk_image_equals_its_file(tmp_path: Path, degrees: float) -> None:
    image = sitk.GetImageFromArray(values())
    image.SetSpacing((2.0, 2.5, 3.0))
    image.SetOrigin((5.0, -6.0, 7.0))
    image.SetDirection((turn(degrees) @ np.diag([1, -1, -1])).ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    before = image.GetDirection()
    assert_same(as_raw_image(image), read_image(tmp_path / "a.nrrd", "a"))
    assert image.GetDirection() == before


def test_array_keeps_its_axes() -> None:
    array = values()
    raw = as_raw_image(array, spacing=(3.0, 2.5, 2.0), case="mine")
    np.testing.assert_array_equal(raw.array, array)
    assert raw.case == "mine" and raw.spacing == (3.0, 2.5, 2.0)
    assert raw.geometry.spacing == (2.0, 2.5, 3.0) and raw.geometry.orientation == "LPS"
    # A view that runs backwards in memory.
    flipped = as_raw_image(array[::-1, :, ::-1], spacing=(3.0, 2.5, 2.0))
    np.testing.assert_array_equal(flipped.array, array[::-1, :, ::-1])


def sheared() -> nibabel.Nifti1Image:
    affine = np.eye(4)
    affine[0, 2] = 0.2
    return nibabel.Nifti1Image(values(), affine)


@pytest.mark.parametrize(
    ("image", "spacing", "words"),
    [
        (values(), None, r"give spacing=\(z, y, x\)"),
        (values(), (1, 2), "not three sizes"),
        (values(), (1, 2, -1), "not three sizes"),
        (values(), (1, 2, float("nan")), "not three sizes"),
        (values()[0], (1, 2, 3), "2D"),
        (values().astype(complex), (1, 2, 3), "of type complex"),
        (values() + 1001, (1, 2, 3), "not CT in Hounsfield"),
        (sheared(), None, "sheared"),
        (
            nibabel.spatialimages.SpatialImage(values(), np.diag([1, 0, 1, 1])),
            None,
            "no voxel size",
        ),
        (nibabel.Nifti1Image(np.stack([values()] * 2, -1), np.eye(4)), None, "4D"),
        (sitk.GetImageFromArray(values()), (1, 1, 1), "leave spacing out"),
        (sitk.GetImageFromArray(values()[0]), None, "2D"),
        ("scan.nii.gz", None, "a str is no image"),
    ],
)
def test_what_is_no_scan_is_refused(image: Any, spacing: Any, words: str) -> None:
    with pytest.raises(CaseError, match=words) as error:
        as_raw_image(image, spacing, case="patient 7")
    assert error.value.case == "patient 7"


@pytest.mark.slow
@pytest.mark.parametrize("teacher", [False, True])
def test_prediction_from_memory_equals_that_from_a_file(trained: Any, teacher: bool) -> None:
    path = trained.raw / "imagesTr" / "phantom_0000_0000.nii.gz"
    predictor = load_predictor(901, detector="teacher" if teacher else "student", device="cpu")
    assert type(predictor.scorer).__name__ == ("Teacher" if teacher else "Student")
    expected = predictor.predict(read_image(path, "a"))
    result = predictor.predict(as_raw_image(nibabel.load(path)))
    for name in ("score", "body"):
        one, other = getattr(result, name), getattr(expected, name)
        np.testing.assert_allclose(
            sitk.GetArrayFromImage(one), sitk.GetArrayFromImage(other), atol=1e-4
        )
        np.testing.assert_allclose(one.GetOrigin(), other.GetOrigin(), atol=1e-4)
    assert sitk.GetArrayFromImage(result.score).std() > 0
