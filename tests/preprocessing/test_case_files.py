from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing import case_files
from screener_nnu.preprocessing.case_files import (
    KINDS,
    CaseFolder,
    Kind,
    stored_values,
    write_case,
)
from screener_nnu.preprocessing.modality import MODALITIES
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.preprocessing.prepare import PreparedImage, prepare_image
from screener_nnu.preprocessing.reading import read_image


@pytest.fixture
def prepared(
    write_image: Callable[..., Path],
    person: Callable[..., np.ndarray],
    settings: PreprocessingSettings,
) -> PreparedImage:
    return prepare_image(read_image(write_image(person((40, 80, 90))), "a.1"), settings)


def test_what_is_written_is_read(prepared: PreparedImage, tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    size = write_case(folder, "a.1", prepared)
    assert size == sum(file.stat().st_size for file in folder.iterdir())
    assert sorted(os.listdir(folder)) == [
        "a.1.json",
        "a.1_body.b2nd",
        "a.1_equalised.b2nd",
        "a.1_hu.b2nd",
    ]
    cases = CaseFolder(folder)
    assert cases.finished() == ["a.1"] and cases.whole_marker("a.1")
    assert cases.frame("a.1") == prepared.frame
    hu, equalised = cases.read("a.1", "hu"), cases.read("a.1", "equalised")
    assert (hu.dtype, equalised.dtype) == (np.int16, np.float16)
    np.testing.assert_array_equal(hu, np.rint(prepared.hu))
    np.testing.assert_allclose(equalised, prepared.equalised, atol=2**-11)
    np.testing.assert_array_equal(cases.read("a.1", "body"), prepared.body)
    assert (
        PreprocessingSettings(
            **{k: tuple(v) if isinstance(v, list) else v for k, v in cases.settings("a.1").items()}
        )
        == prepared.settings
    )


@pytest.mark.parametrize("kind", KINDS)
def test_boxes(prepared: PreparedImage, tmp_path: Path, kind: Kind) -> None:
    write_case(tmp_path, "a", prepared)
    cases = CaseFolder(tmp_path)
    whole, generator = cases.read("a", kind), np.random.default_rng(0)
    assert cases.shape("a", kind) == whole.shape
    for _ in range(20):
        start = tuple(int(generator.integers(0, n)) for n in whole.shape)
        stop = tuple(
            int(generator.integers(a + 1, n + 1)) for a, n in zip(start, whole.shape, strict=True)
        )
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        np.testing.assert_array_equal(cases.read_box("a", kind, start, stop), whole[box])
    z, y, x = whole.shape
    for start, stop in [((0, 0, -1), whole.shape), ((0, 0, 0), (z, y + 1, x)), ((3, 3, 3),) * 2]:
        with pytest.raises(ValueError, match="not inside"):
            cases.read_box("a", kind, start, stop)


def test_nothing_there(tmp_path: Path) -> None:
    assert CaseFolder(tmp_path / "absent").finished() == []
    with pytest.raises(CaseError, match="run screener_plan_and_preprocess again"):
        CaseFolder(tmp_path).read("a", "hu")
    with pytest.raises(CaseError, match="run screener_plan_and_preprocess again"):
        CaseFolder(tmp_path).frame("a")


@pytest.mark.parametrize("kept", [0, 20, 0.5, 0.99])
def test_damaged_files_name_the_case(prepared: PreparedImage, tmp_path: Path, kept: float) -> None:
    write_case(tmp_path, "a", prepared)
    cases = CaseFolder(tmp_path)
    for name, read in [
        ("a_equalised.b2nd", lambda: cases.read("a", "equalised")),
        ("a.json", lambda: cases.frame("a")),
    ]:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: int(kept * len(content) if kept < 1 else kept)])
        with pytest.raises(CaseError, match="delete it and run screener_plan_and_preprocess again"):
            read()
        assert cases.whole_marker("a") is None
        (tmp_path / name).write_bytes(content)
    assert cases.whole_marker("a")


class FullDisk:
    """Stands for `os.fsync` of a disk with room for some files only."""

    def __init__(self, room: int, code: int) -> None:
        self.room, self.code = room, code

    def __call__(self, number: int) -> None:
        self.room -= 1
        if self.room < 0:
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("room", [0, 1, 2, 3])
def test_full_disk_leaves_nothing(
    prepared: PreparedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    folder = tmp_path / "cases"
    write_case(folder, "kept", prepared)
    before = sorted(os.listdir(folder))
    monkeypatch.setattr(case_files.os, "fsync", FullDisk(room, errno.ENOSPC))
    with pytest.raises(ScreenerError, match=r"b cannot be written.*free some space"):
        write_case(folder, "b", prepared)
    assert sorted(os.listdir(folder)) == before
    assert CaseFolder(folder).finished() == ["kept"]


def test_unwritable_folder(
    prepared: PreparedImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(case_files.os, "fsync", FullDisk(0, errno.EIO))
    with pytest.raises(ScreenerError, match="check that folder"):
        write_case(tmp_path, "b", prepared)


def test_case_without_marker_is_not_finished(prepared: PreparedImage, tmp_path: Path) -> None:
    write_case(tmp_path, "a", prepared)
    (tmp_path / "a.json").rename(tmp_path / ".a.json.tmp")
    assert CaseFolder(tmp_path).finished() == []
    write_case(tmp_path, "b", prepared)
    (tmp_path / "b_hu.b2nd").unlink()
    assert CaseFolder(tmp_path).finished() == []


@pytest.fixture
def colours(tmp_path: Path) -> PreparedImage:
    """A colour picture whose rows are more than a chunk."""
    rng = np.random.default_rng(0)
    write_picture(rng.integers(20, 256, (3, 70, 90)).astype(np.uint8), tmp_path / "a.png")
    spacing, window = (999.0, 1.0, 1.0), (0.0, 255.0)
    settings = PreprocessingSettings(
        spacing, spacing, window, window, 0.06, equalisation="none", modality="picture"
    )
    return prepare_image(read_image(tmp_path / "a.png", "a", "picture"), settings)


def test_colours_come_back(colours: PreparedImage, tmp_path: Path) -> None:
    write_case(tmp_path / "cases", "a", colours)
    cases = CaseFolder(tmp_path / "cases")
    hu, equalised = cases.read("a", "hu"), cases.read("a", "equalised")
    assert hu.shape == equalised.shape == (3, 1, 70, 90)
    assert cases.shape("a", "hu") == cases.shape("a", "body") == (1, 70, 90)
    assert hu.dtype == np.float16
    np.testing.assert_array_equal(hu, colours.hu)  # whole numbers of 8 bits fit
    np.testing.assert_allclose(equalised, colours.equalised, atol=2**-11)
    assert cases.frame("a") == colours.frame and cases.whole_marker("a")


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_of_colours_hold_all_of_them(
    colours: PreparedImage, tmp_path: Path, kind: Kind
) -> None:
    write_case(tmp_path / "cases", "a", colours)
    cases = CaseFolder(tmp_path / "cases")
    whole = cases.read("a", kind)
    found = cases.read_box("a", kind, (0, 60, 7), (1, 70, 66))
    np.testing.assert_array_equal(found, whole[..., 60:70, 7:66])
    with pytest.raises(ValueError, match="not inside"):
        cases.read_box("a", kind, (0, 0, 0), (1, 71, 90))


def test_values_beyond_the_type_are_clipped() -> None:
    values = np.array([-1e9, -2.25, 7.0, 1e9])
    np.testing.assert_array_equal(
        stored_values(values, MODALITIES["mr"]), np.array([-65504, -2.25, 7, 65504], np.float16)
    )
    np.testing.assert_array_equal(
        stored_values(np.array([-3.6, 2.4]), MODALITIES["ct"]), np.array([-4, 2], np.int16)
    )
