"""A prediction neither replaces scans nor takes one case's files for another's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.inference.images import find_images
from screener_nnu.inference.output_folder import (
    refuse_folder_of_scans,
    remove_what_was_being_written,
    taken_names,
)
from screener_nnu.inference.source_identity import source_identity

Writer = Callable[..., list[Path]]
SCAN = np.where(np.arange(6 * 8 * 10).reshape(6, 8, 10) % 7 < 4, 35, -990)


def test_folder_of_scans_is_refused(tmp_path: Path, write_dicom: Writer) -> None:
    (tmp_path / "scans" / "maps").mkdir(parents=True)
    (tmp_path / "scans" / "a.nii.gz").write_bytes(b"scan")
    write_dicom(tmp_path / "export" / "series", SCAN)
    series = find_images(tmp_path / "export")
    file = {"a": tmp_path / "scans" / "a.nii.gz"}
    for images, output in (
        (file, tmp_path / "scans"),
        (file, tmp_path / "scans" / "maps" / ".."),
        ({"b": tmp_path / "export"}, tmp_path / "export"),
        (series, tmp_path / "export" / "series"),
    ):
        with pytest.raises(ScreenerError, match="holds scans, which maps would replace"):
            refuse_folder_of_scans(images, output)
    for images in (file, series):
        refuse_folder_of_scans(images, tmp_path / "scans" / "maps")


def test_names_of_other_cases_files() -> None:
    reasons = taken_names(["a", "a_body", "b_body", "a_body_mask", "c_mask", "a_lung"])
    assert set(reasons) == {"a_body", "a_body_mask"}
    assert "a_body.nii.gz of the case a:" in reasons["a_body"]


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    old = time.time() - 2 * 3600
    left = [
        tmp_path / ".a_body.nii.gz.123.tmp",
        tmp_path / ".screener_header_1",
        tmp_path / ".screener_header_2",
    ]
    kept = (".b.nii.gz.7.tmp", ".a.nii.gz", "a.nii.gz", ".12.txt", ".notes.12.tmp", ".headers")
    others = [tmp_path / name for name in kept]
    for path in (left[0], *others):
        path.write_bytes(b"")
    for path in left[1:]:
        path.mkdir()
    for path in tmp_path.iterdir():
        # Another process may be writing `b` at this moment.
        if path.name != ".b.nii.gz.7.tmp":
            os.utime(path, (old, old))
    remove_what_was_being_written(tmp_path)
    assert set(tmp_path.iterdir()) == set(others)


def test_identity_of_a_scan(tmp_path: Path, write_dicom: Writer) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"x" * 300_000)
    first = source_identity(path)
    copy = tmp_path / "copy.nii.gz"
    copy.write_bytes(path.read_bytes())
    os.utime(copy, (1, 1))
    assert source_identity(copy) == first and len(first) == 16
    for content in (b"x" * 299_999, b"x" * 299_999 + b"y", b"y" + b"x" * 299_999):
        path.write_bytes(content)
        assert source_identity(path) not in ("", first)
    assert source_identity(tmp_path) == source_identity(tmp_path / "nowhere") == ""

    def of_series(folder: str, uid: str) -> str:
        write_dicom(tmp_path / folder, SCAN, uid=uid)
        (series,) = find_images(tmp_path / folder).values()
        return source_identity(series)

    assert of_series("one", "1.2.826.1") == of_series("same", "1.2.826.1")
    assert of_series("one", "1.2.826.1") != of_series("other", "1.2.826.2")
