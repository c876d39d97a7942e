from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.preprocessing.raw_dataset import find_cases
from screener_nnu.preprocessing.reading import Geometry, read_image, read_size

Writer = Callable[..., Path]
# Direction cosines (columns: x, y, z axis of the file) and their code.
AXES = {
    "LPS": np.eye(3),
    "RAS": np.diag([-1, -1, 1]),
    "LPI": np.diag([1, 1, -1]),
    "PSL": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "SRA": np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]]),
}


def rotation(degrees: float) -> np.ndarray:
    """A small rotation about all three axes."""
    a, b, c = np.deg2rad([degrees, -0.7 * degrees, 0.4 * degrees])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rx @ ry @ rz


@pytest.mark.parametrize("code", AXES)
@pytest.mark.parametrize("degrees", [0.0, 12.0])
def test_canonical_axes_point_left_back_and_up(
    write_image: Writer, person: Callable[..., np.ndarray], code: str, degrees: float
) -> None:
    array = person((9, 14, 20))
    array[:] = np.arange(array.size).reshape(array.shape) % 1300 - 1000
    path = write_image(array, (3.0, 2.0, 2.5), rotation(degrees) @ AXES[code], name="a.nrrd")
    raw = read_image(path, "a")
    image = sitk.ReadImage(str(path))
    # Oracle: each canonical axis is the file's axis nearest to it, found by explicit physics.
    matrix = np.array(image.GetDirection()).reshape(3, 3)
    image_array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    order = [int(np.abs(matrix[world]).argmax()) for world in range(3)]
    flat = image_array.transpose(order)
    for world in range(3):
        if matrix[world, order[world]] < 0:
            flat = np.flip(flat, world)
    np.testing.assert_array_equal(raw.array, flat.transpose(2, 1, 0))
    spacing = [image.GetSpacing()[axis] for axis in order]
    assert raw.spacing == pytest.approx(tuple(spacing[::-1]))
    assert raw.geometry.orientation == code
    assert raw.array.dtype == np.float32


def test_geometry_survives_json(write_image: Writer, person: Callable[..., np.ndarray]) -> None:
    raw = read_image(write_image(person(), direction=rotation(7.0)), "a")
    text = json.dumps(raw.geometry.to_dict())
    assert Geometry.from_dict(json.loads(text)) == raw.geometry


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    array[2, 3, 4] = value
    return array


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a[5], "2D"),
        (lambda a: a[:1], "only"),
        (lambda a: with_value(a, np.nan), "NaN"),
        (lambda a: with_value(a, -np.inf), "NaN or infinite"),
        (lambda a: a + 1024 + 100, "looks like HU \\+ 1024: subtract 1024"),
        (lambda a: np.full_like(a, -1000), "nothing but air"),
    ],
)
def test_bad_images_name_the_case(
    write_image: Writer,
    person: Callable[..., np.ndarray],
    change: Callable[[np.ndarray], np.ndarray],
    words: str,
) -> None:
    path = write_image(change(person()), name="scan.nrrd")
    with pytest.raises(CaseError, match=words) as error:
        read_image(path, "patient_7")
    assert error.value.case == "patient_7"


def test_images_of_more_values_than_one_are_refused(
    tmp_path: Path, person: Callable[..., np.ndarray]
) -> None:
    array = person((6, 8, 9))
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.stack([array] * 2, -1), isVector=True), str(path))
    with pytest.raises(CaseError, match="2 components"):
        read_image(path, "a")
    path = tmp_path / "b.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(array)] * 2), str(path))
    with pytest.raises(CaseError, match="4D"):
        read_image(path, "b")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.97])
def test_torn_files(
    write_image: Writer, person: Callable[..., np.ndarray], ending: str, kind: type, kept: float
) -> None:
    path = write_image(person().astype(kind), name=f"a{ending}")
    np.testing.assert_array_equal(read_image(path, "whole").array, person())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CaseError, match=r"cannot be (read|used)"):
        read_image(path, "torn")


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="cannot be read"):
        read_image(tmp_path / "absent.nii.gz", "absent")
    assert read_size(tmp_path / "absent.nii.gz") == (0, 0.0)


def test_several_gzip_members_are_read(
    write_image: Writer, person: Callable[..., np.ndarray]
) -> None:
    path = write_image(person().astype(np.int16), name="a.nii")
    content = path.read_bytes()
    packed = path.with_name("a.nii.gz")
    packed.write_bytes(gzip.compress(content[:9000]) + gzip.compress(content[9000:]))
    np.testing.assert_array_equal(read_image(packed, "a").array, person())


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_nan_in_nifti_is_found(
    write_image: Writer, person: Callable[..., np.ndarray], kind: type
) -> None:
    array = with_value(person(), np.nan).astype(kind)
    with pytest.raises(CaseError, match="NaN"):
        read_image(write_image(array), "a")


def write_series(folder: Path, array: np.ndarray, uid: str, places: list[float]) -> None:
    """A DICOM series with one file per slice, slices at the given z (mm)."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for index, place in enumerate(places):
        image = sitk.GetImageFromArray(array[index].astype(np.int16)[None])
        image.SetSpacing((2.5, 2.0, 3.0))
        image.SetOrigin((-5.0, 7.0, place))
        tags = {
            "0008|0060": "CT",
            "0020|000e": uid,
            "0020|000d": "1.2.3",
            "0008|0018": f"{uid}.{index + 1}",
            "0020|0013": str(index),
            "0020|0032": f"-5.0\\7.0\\{place}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{uid}_{index:03d}.dcm"))
        writer.Execute(image)


def test_dicom_folder(tmp_path: Path, person: Callable[..., np.ndarray]) -> None:
    array = person((8, 20, 24))
    places = [3.0 * i for i in range(8)]
    write_series(tmp_path / "one", array, "1.2.840.1", places)
    raw = read_image(tmp_path / "one", "one")
    np.testing.assert_array_equal(raw.array, array)
    assert raw.spacing == pytest.approx((3.0, 2.0, 2.5))
    assert read_size(tmp_path / "one")[0] == array.size

    write_series(tmp_path / "one", array, "1.2.840.2", places)
    with pytest.raises(CaseError, match="holds 2 DICOM series"):
        read_image(tmp_path / "one", "two")
    (tmp_path / "none").mkdir()
    with pytest.raises(CaseError, match="holds 0 DICOM series"):
        read_image(tmp_path / "none", "none")
    write_series(tmp_path / "gap", array, "1.2.840.3", [*places[:4], *[p + 3 for p in places[4:]]])
    with pytest.raises(CaseError, match="missing, up to 6.0 mm"):
        read_image(tmp_path / "gap", "gap")


def dataset(folder: Path, names: list[str], channels: int = 1) -> Path:
    (folder / "imagesTr").mkdir(parents=True)
    channel_names = {str(i): "CT" for i in range(channels)}
    values = {"channel_names": channel_names, "labels": {"background": 0}, "file_ending": ".nrrd"}
    (folder / "dataset.json").write_text(json.dumps(values))
    for name in names:
        (folder / "imagesTr" / name).touch()
    return folder


def test_find_cases(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "Dataset001_A", ["b.1_0000.nrrd", "a_0000.nrrd", "notes.txt"])
    images = folder / "imagesTr"
    assert list(find_cases(folder).items()) == [
        ("a", images / "a_0000.nrrd"),
        ("b.1", images / "b.1_0000.nrrd"),
    ]


def test_find_cases_refuses_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ScreenerError, match=r"dataset.json is missing.*unlabelled scans"):
        find_cases(tmp_path)
    with pytest.raises(ScreenerError, match="no image"):
        find_cases(dataset(tmp_path / "A", []))
    with pytest.raises(ScreenerError, match="2 channels"):
        find_cases(dataset(tmp_path / "B", ["a_0000.nrrd"], channels=2))
    with pytest.raises(ScreenerError, match="a_0001"):
        find_cases(dataset(tmp_path / "C", ["a_0000.nrrd", "a_0001.nrrd"]))
    (tmp_path / "C" / "dataset.json").write_text("{")
    with pytest.raises(ScreenerError, match="correct it"):
        find_cases(tmp_path / "C")


def test_size_of_a_series_from_its_headers(
    tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    """Memory is planned by it; the last slice has a thickness, too."""
    from screener_nnu.dicom.finding import find_series

    array = np.full((8, 20, 24), 40)
    write_dicom(tmp_path / "series", array, spacing=(3.0, 2.0, 2.5))
    (series,) = find_series(tmp_path / "series").series
    voxels, volume = read_size(series)
    assert voxels == array.size
    assert volume == pytest.approx(array.size * 3.0 * 2.0 * 2.5)
