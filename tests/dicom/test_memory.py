"""Archives have millions of slices, and zips hundreds of thousands of members."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.files import FileRef, close_zips
from screener_nnu.dicom.finding import find_series
from screener_nnu.dicom.volume import read_series

Writer = Callable[..., list[Path]]


def test_memory_of_a_slice(tmp_path: Path, write_dicom: Writer) -> None:
    for number in range(2):
        write_dicom(tmp_path / "a" / f"{number}", np.zeros((100, 4, 4), int), f"1.2.826.{number}")
    find_series(tmp_path)
    tracemalloc.start()
    try:
        found = find_series(tmp_path)
        assert sum(len(one.slices) for one in found.series) == 200
        assert tracemalloc.get_traced_memory()[0] / 200 < 1000
    finally:
        tracemalloc.stop()


def test_equal_numbers_keep_their_kind(tmp_path: Path, write_dicom: Writer) -> None:
    write_dicom(tmp_path, np.zeros((6, 2, 2), int), spacing=(2.0, 2.0, 2.0))
    (series,) = find_series(tmp_path).series
    one = series.slices[0]
    assert one.shape == one.spacing == (2, 2)
    assert {type(value) for value in one.shape} == {int}
    assert {type(value) for value in one.spacing or ()} == {float}


def test_a_file_is_told_by_its_path_and_member() -> None:
    path = Path("/data/a/b.zip")
    assert FileRef(path).path == path and FileRef(path, "x/y").path == path
    assert FileRef(path) == FileRef(Path("/data/a/b.zip")) != FileRef(path, "x")
    assert FileRef(Path("b")).path == Path("b") and FileRef(Path("b")).parent == ()


def test_the_directory_of_a_zip_is_read_once_for_many_series(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = tmp_path / "a.zip"

    def pack(scans: list[np.ndarray]) -> None:
        with zipfile.ZipFile(packed, "w") as archive:
            for number, one in enumerate(scans):
                for file in write_dicom(tmp_path / f"{number}", one, uid=f"1.2.826.{number}"):
                    archive.write(file, f"{number}/{file.name}")

    pack([scan, scan + 1, scan + 2])
    found = find_series(packed)
    opened: list[Any] = []
    real = zipfile.ZipFile.__init__

    def count(self: Any, *arguments: Any, **options: Any) -> None:
        opened.append(arguments)
        real(self, *arguments, **options)

    monkeypatch.setattr(zipfile.ZipFile, "__init__", count)
    arrays = [sitk.GetArrayFromImage(read_series(one, "a").image) for one in found.series]
    np.testing.assert_array_equal(arrays, [scan, scan + 1, scan + 2])
    assert len(opened) == 1
    # Another file of the same name is not taken for the one that was open.
    pack([scan + 7])
    (series,) = find_series(packed).series
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(series, "a").image), scan + 7)
    close_zips()
