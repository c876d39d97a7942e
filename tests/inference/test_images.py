"""Which scans are found, under which names, and files that are written whole or not at all."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.records import Series
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.inference.images import case_name, find_images
from screener_nnu.preprocessing.image_files import write_image
from screener_nnu.preprocessing.reading import read_image

Writer = Callable[..., list[Path]]
SCAN = np.where(np.arange(6 * 8 * 10).reshape(6, 8, 10) % 7 < 4, 35, -990)


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
    folder = touch(tmp_path, "b_0000.nii.gz", "a.mha", "notes.txt", "c.NII.GZ", ".7.d_0000.nii.gz")
    assert find_images(folder) == {
        "a": folder / "a.mha",
        "b": folder / "b_0000.nii.gz",
        "c": folder / "c.NII.GZ",
    }


def test_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "b_0000.nii.gz")
    path = tmp_path / "b_0000.nii.gz"
    assert find_images(path) == {"b": path}


def test_folder_of_a_dicom_series(tmp_path: Path, write_dicom: Writer) -> None:
    folder = tmp_path / "patient 7"
    files = write_dicom(folder, SCAN)
    (series,) = find_images(folder).values()
    assert list(find_images(folder)) == ["patient 7"]
    assert isinstance(series, Series)
    assert {one.file.path for one in series.slices} == set(files)


def test_one_file_of_a_series_is_no_volume(tmp_path: Path, write_dicom: Writer) -> None:
    files = write_dicom(tmp_path / "in", SCAN)
    with pytest.raises(ScreenerError, match="by itself is no volume of CT: give the folder"):
        find_images(files[3])


def test_mixed_folder(
    tmp_path: Path, write_dicom: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    folder = touch(tmp_path / "in", "b_0000.nii.gz", "notes.txt")
    write_dicom(folder / "x" / "thorax", SCAN, uid="1.2.826.1")
    write_dicom(folder / "x" / "scout", SCAN[:1], uid="1.2.826.2")
    packed = folder / "old.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in write_dicom(tmp_path / "elsewhere", SCAN, uid="1.2.826.3"):
            archive.write(file, f"s/{file.name}")
    touch(folder, "torn.zip")
    (folder / "torn.zip").write_bytes(packed.read_bytes()[:2000])
    found = find_images(folder)
    assert list(found) == ["b", "x_thorax", "old_s"]
    assert found["b"] == folder / "b_0000.nii.gz"
    for name, values in (("x_thorax", SCAN), ("old_s", SCAN)):
        np.testing.assert_array_equal(read_image(found[name], name).array, values)
    assert sum("1 slice, fewer than 5" in message for message in caplog.messages) == 1
    assert any("torn.zip is not read" in message for message in caplog.messages)
    # A zip by itself is called by its name; it can also be read at once.
    assert list(find_images(packed)) == ["old"]
    raw = read_image(packed, "old")
    np.testing.assert_array_equal(raw.array, SCAN)
    assert raw.source is not None and raw.source.series_uid == "1.2.826.3"


def test_image_and_series_of_one_name(tmp_path: Path, write_dicom: Writer) -> None:
    folder = touch(tmp_path / "in", "in.nii.gz")
    write_dicom(folder, SCAN)
    with pytest.raises(ScreenerError, match=r"DICOM series ct_\w+ and in\.nii\.gz have the same"):
        find_images(folder)


def test_damaged_zip_alone(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04" + b"x" * 300)
    with pytest.raises(ScreenerError, match=r"a\.zip is not read: it is damaged"):
        find_images(tmp_path / "a.zip")
    with pytest.raises(CaseError, match=r"scan: the zip a\.zip is not read"):
        read_image(tmp_path / "a.zip", "scan")


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
    with pytest.raises(ScreenerError, match=r"map\.nii\.gz cannot be written \(disk full\)"):
        write_image(sitk.Image([2, 2, 2], sitk.sitkUInt8), path)
    assert [p.name for p in tmp_path.iterdir()] == ["map.nii.gz"] and path.read_text() == "old"
