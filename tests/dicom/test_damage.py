"""Damage of one file, series, zip or folder is reported, and everything else goes on."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom import finding, volume
from screener_nnu.dicom.files import list_files
from screener_nnu.dicom.finding import find_series
from screener_nnu.dicom.naming import names_by_folder
from screener_nnu.dicom.volume import check_series, read_series
from screener_nnu.errors import CaseError, ScreenerError

Writer = Callable[..., list[Path]]


@pytest.mark.parametrize("at", [0, 12, 400])
def test_damaged_deflate_data(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, at: int
) -> None:
    files = write_dicom(tmp_path / "a", scan)
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.write(file, file.name)
        torn = archive.getinfo(files[7].name)
    content = bytearray(packed.read_bytes())
    start = torn.header_offset + 30 + len(torn.filename) + at
    content[start : start + 60] = b"\xff" * 60
    packed.write_bytes(content)
    found = find_series(packed)
    (series,) = found.series
    # Damage behind the header is found when pixels are read.
    kept = 8 - found.unreadable - found.other_files
    assert len(series.slices) == kept and (kept == 7 or at == 400)
    if kept == 7:
        array = sitk.GetArrayFromImage(read_series(series, "a").image)
        np.testing.assert_array_equal(array, scan[:7])


@pytest.mark.parametrize("size", [[0, 0], [2.0, -2.5], [1e300, 2.5]])
def test_pixels_of_no_size(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, size: list[float]
) -> None:
    write_dicom(tmp_path, scan, change=lambda one, i: setattr(one, "PixelSpacing", size))
    with pytest.raises(CaseError, match=r"pixels of .* mm are none \(Pixel Spacing\)"):
        check_series(find_series(tmp_path).series[0], "a")


@pytest.mark.parametrize("far", [1e308, -1e30, 2e6])
def test_absurd_positions_are_none(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, far: float
) -> None:
    def throw(one: Any, index: int) -> None:
        if index == 7:
            one.ImagePositionPatient = [0, 0, f"{far:g}"]

    write_dicom(tmp_path, scan, change=throw)
    found = find_series(tmp_path)
    assert [one.reason for one in found.left_out] == ["slices without positions"]
    array = sitk.GetArrayFromImage(read_series(found.series[0], "a").image)
    np.testing.assert_array_equal(array, scan[:7])


def test_absurd_directions_are_refused(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    axes = [1e308, 0, 0, 0, 1e308, 0]
    write_dicom(tmp_path, scan, change=lambda one, i: setattr(one, "ImageOrientationPatient", axes))
    with pytest.raises(CaseError, match="not at right angles"):
        check_series(find_series(tmp_path).series[0], "a")


def test_unexpected_errors_are_those_of_one_series(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        write_dicom(tmp_path / f"{number}", scan, uid=f"1.2.826.{number}")
    split, stack = finding.split_series, volume.stack_slices

    def fail_to_split(info: Any, slices: Any) -> Any:
        if info.uid.endswith("1"):
            raise OverflowError("too far")
        return split(info, slices)

    with monkeypatch.context() as patch:
        patch.setattr(finding, "split_series", fail_to_split)
        found = find_series(tmp_path)
    assert [one.info.uid for one in found.series] == ["1.2.826.2"]
    assert [one.reason for one in found.left_out] == [
        "its headers make no volume (OverflowError: too far)"
    ]

    def fail_to_stack(*arguments: Any) -> Any:
        raise PermissionError(13, "no rights", "/home/nightingale")

    monkeypatch.setattr(volume, "stack_slices", fail_to_stack)
    with pytest.raises(CaseError, match=r"\(PermissionError: no rights\)") as error:
        read_series(found.series[0], "a")
    assert "nightingale" not in str(error.value)
    monkeypatch.setattr(volume, "stack_slices", stack)
    monkeypatch.setattr(
        volume.sitk, "GetImageFromArray", lambda array: (_ for _ in ()).throw(RuntimeError("odd"))
    )
    with pytest.raises(CaseError, match=r"\(RuntimeError: odd\)"):
        read_series(found.series[0], "a")


def test_short_memory_is_no_damage(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dicom(tmp_path, scan)
    (series,) = find_series(tmp_path).series

    def fail(*arguments: Any, **options: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr("screener_nnu.dicom.pixels.decode_frames", fail)
    with pytest.raises(MemoryError):
        read_series(series, "a")


def test_long_names_fit_a_file_name(tmp_path: Path, write_dicom: Writer, scan: np.ndarray) -> None:
    # Letters of two bytes, and three folders that differ only at their ends.
    top = tmp_path / ("x" + "ö" * 110)
    parents = [top / ("ä" * 100) / ("ü" * 100) / end for end in ("a", "b")]
    for number, parent in enumerate(parents):
        write_dicom(parent, scan, uid=f"1.2.826.{number}")
    found = find_series(tmp_path)
    names = names_by_folder(found.series, tmp_path)
    assert len(set(names)) == 2
    for name, series in zip(names, found.series, strict=True):
        assert len(name.encode()) <= 150 and name.endswith(series.pseudonym)
        assert name.startswith("x" + "ö" * 50)
    (alone,) = names_by_folder(find_series(top / parents[0]).series[:1], top)
    assert len(alone.encode()) <= 150


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Files and folders called `closed*` cannot be opened, also not by root."""
    real_open, real_scandir = io.open, os.scandir

    def refuse(path: Any) -> None:
        if isinstance(path, (str, os.PathLike)) and Path(path).name.startswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))

    def open_file(path: Any, *arguments: Any, **options: Any) -> Any:
        refuse(path)
        return real_open(path, *arguments, **options)

    def scan_folder(path: Any = ".") -> Any:
        refuse(path)
        return real_scandir(path)

    monkeypatch.setattr(io, "open", open_file)
    monkeypatch.setattr(os, "scandir", scan_folder)
    yield


def test_what_cannot_be_opened_is_reported(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, closed: None
) -> None:
    write_dicom(tmp_path / "open", scan)
    write_dicom(tmp_path / "closed", scan, uid="1.2.826.5")
    os.close(os.open(tmp_path / "closed.zip", os.O_CREAT))
    found = find_series(tmp_path)
    assert len(found.series) == 1
    assert found.bad_folders == (tmp_path / "closed",)
    (bad,) = found.bad_zips
    assert "cannot be opened (Permission denied)" in bad.reason
    with pytest.raises(ScreenerError, match="closed cannot be read"):
        list(list_files(tmp_path / "closed"))
