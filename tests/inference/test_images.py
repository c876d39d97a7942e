"""Which scans are found, under which names, and files that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import ScreenerError
from screener_nnu.inference.images import case_name, find_images, write_image


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("file", "case"),
    [
        ("lung_003_0000.nii.gz", "lung_003"),
        ("lung_003.nii.gz", "lung_003"),
        ("a.nii", "a"),
        ("a.b_0000.NRRD", "a.b"),
        ("x_0001.mha", "x_0001"),
        ("10000.mhd", "10000"),
        ("I0001.dcm", "I0001.dcm"),
        ("0000_0000.nii.gz", "0000"),
        ("a_0000_b.nii.gz", "a_0000_b"),
    ],
)
def test_case_name(file: str, case: str) -> None:
    assert case_name(Path("/data") / file) == case


def test_folder_of_files(tmp_path: Path) -> None:
    folder = touch(tmp_path, "b_0000.nii.gz", "a.mha", "notes.txt", "c.NII.GZ", ".hidden")
    assert find_images(folder) == {
        "a": folder / "a.mha",
        "b": folder / "b_0000.nii.gz",
        "c": folder / "c.NII.GZ",
    }


def test_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "b_0000.nii.gz")
    path = tmp_path / "b_0000.nii.gz"
    assert find_images(path) == {"b": path}


def test_folder_of_other_files_is_a_dicom_series(tmp_path: Path) -> None:
    folder = touch(tmp_path / "patient 7", "I0001", "I0002")
    assert find_images(folder) == {"patient 7": folder}


def test_nothing_to_predict(tmp_path: Path) -> None:
    with pytest.raises(ScreenerError, match="does not exist"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(ScreenerError, match=r"no image in .*\.nii\.gz.*DICOM"):
        find_images(tmp_path)


def test_two_scans_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a.nii.gz")
    with pytest.raises(ScreenerError, match=r"a\.nii\.gz and a_0000\.nii\.gz|a_0000.* and a\.nii"):
        find_images(tmp_path)


def test_written_image_is_whole_and_alone(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    path = tmp_path / "map.nii.gz"
    write_image(image, path)
    assert [p.name for p in tmp_path.iterdir()] == ["map.nii.gz"]
    back = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    np.testing.assert_array_equal(back, sitk.GetArrayFromImage(image))


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "map.nii.gz"
    path.write_text("old")

    def half_written(image: sitk.Image, target: str, **options: bool) -> None:
        Path(target).write_text("half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(sitk, "WriteImage", half_written)
    with pytest.raises(ScreenerError, match=r"map\.nii\.gz cannot be written: disk full"):
        write_image(sitk.Image([2, 2, 2], sitk.sitkUInt8), path)
    assert [p.name for p in tmp_path.iterdir()] == ["map.nii.gz"] and path.read_text() == "old"
