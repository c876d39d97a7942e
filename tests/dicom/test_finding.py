"""Which series of a mixed folder are volumes of CT, and why the others are left out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.finding import find_series
from screener_nnu.dicom.naming import names_by_folder
from screener_nnu.dicom.volume import check_series, read_series

Writer = Callable[..., list[Path]]


def setter(**values: Any) -> Callable[[Any, int], None]:
    def change(one: Any, index: int) -> None:
        for name, value in values.items():
            setattr(one, name, value)

    return change


def drop_places(one: Any, index: int) -> None:
    del one.ImagePositionPatient, one.ImageOrientationPatient


LEFT_OUT: dict[str, tuple[Callable[[Any, int], None], str]] = {
    "magnetic": (setter(Modality="MR"), "modality MR, not CT"),
    "capture": (
        lambda one, i: (
            setattr(one, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),
            drop_places(one, i),
        ),
        "a secondary capture",
    ),
    "scout": (setter(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a scout image"),
    "projection": (setter(ImageType=["DERIVED", "SECONDARY", "MIP"]), "Image Type MIP"),
    "iodine": (setter(RescaleType="mg/ml"), "values in mg/ml, not in HU"),
    "inverted": (setter(PhotometricInterpretation="MONOCHROME1"), "pictures in MONOCHROME1"),
    "placeless": (drop_places, "slices without positions"),
    "drawn": (
        lambda one, i: (setattr(one, "ImageType", ["DERIVED", "SECONDARY"]), drop_places(one, i)),
        "derived images without positions",
    ),
}


def test_every_series_is_taken_or_left_out_with_its_reason(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    expected = {}
    for index, (name, (change, reason)) in enumerate(LEFT_OUT.items()):
        uid = f"1.2.826.2.{index}"
        write_dicom(tmp_path / "study" / name, scan, uid=uid, change=change)
        expected[uid] = reason
    write_dicom(tmp_path / "study", scan[:4], uid="1.2.826.3")
    expected["1.2.826.3"] = "4 slices, fewer than 5"
    write_dicom(tmp_path / "study" / "deep" / "er", scan, uid="1.2.826.4")
    # A reformatted volume states where its slices lie: it is one.
    reformatted = setter(ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
    write_dicom(tmp_path, scan, uid="1.2.826.5", change=reformatted)
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "study" / "long").write_bytes(b"\x01" * 5000)
    (tmp_path / "study" / "broken").write_bytes(b"\x00" * 128 + b"DICM" + b"\xff\x01" * 40)
    found = find_series(tmp_path)
    assert [series.info.uid for series in found.series] == ["1.2.826.4", "1.2.826.5"]
    reasons = {one.series.info.uid: one.reason for one in found.left_out}
    assert reasons.keys() == expected.keys()
    for uid, words in expected.items():
        assert words in reasons[uid], uid
    assert found.other_files + found.unreadable == 3
    assert find_series(tmp_path, min_slices=9).series == ()


def test_scouts_within_a_series_are_parted_from_it(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    write_dicom(tmp_path, scan)
    scout = np.zeros((2, 30, 24), int)

    def change(one: Any, index: int) -> None:
        one.SOPInstanceUID = f"1.2.826.1.9{index}"
        one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        one.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    write_dicom(tmp_path, scout, change=change)
    # Another matrix, and another pixel size, without being called scouts.
    write_dicom(tmp_path, scan[:, :10], change=lambda o, i: change_uid(o, f"1.2.826.1.8{i}"))
    found = find_series(tmp_path)
    assert [len(series.slices) for series in found.series] == [8, 8]
    assert [one.reason for one in found.left_out] == ["a scout image (localizer)"]
    assert len({series.pseudonym for series in found.series}) == 2
    shapes = sorted(read_series(series, "a").image.GetSize() for series in found.series)
    assert shapes == [(24, 10, 8), (24, 20, 8)]


def change_uid(one: Any, uid: str) -> None:
    one.SOPInstanceUID = uid


CLOCKS = {
    "AcquisitionNumber": (1, 2),
    "TemporalPositionIndex": (1, 2),
    "AcquisitionTime": ("101500", "101530.5"),
    "ContentTime": ("101500", "101530.5"),
}


@pytest.mark.parametrize("clock", [*CLOCKS, None])
def test_phases_are_parted_by_what_tells_them_apart(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, clock: str | None
) -> None:
    for phase in (0, 1):

        def change(one: Any, index: int, phase: int = phase) -> None:
            one.SOPInstanceUID = f"1.2.826.1.{phase}.{index}"
            one.ContentTime = f"1012{index:02d}"
            if clock:
                setattr(one, clock, CLOCKS[clock][phase])

        write_dicom(tmp_path, scan + 100 * phase, change=change)
    found = find_series(tmp_path)
    if clock is None:
        (series,) = found.series
        with pytest.raises(Exception, match=r"2 different images lie at .*8 of 8 positions.*phase"):
            read_series(series, "a")
        return
    assert [series.part for series in found.series] == [1, 2]
    arrays = [sitk.GetArrayFromImage(read_series(s, "a").image) for s in found.series]
    np.testing.assert_array_equal(arrays[0], scan)
    np.testing.assert_array_equal(arrays[1], scan + 100)
    # The number of a part does not depend on where its files lie.
    moved = tmp_path / "z"
    moved.mkdir()
    for one in found.series[0].slices:
        shutil.move(one.file.path, moved)
    again = find_series(tmp_path)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(read_series(again.series[0], "a").image), scan
    )


def test_pseudonyms_depend_on_the_series_alone(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    write_dicom(tmp_path / "a", scan)
    write_dicom(tmp_path / "b" / "Nightingale", scan[:7])
    write_dicom(tmp_path / "c", scan, uid="1.2.826.2")
    names = [find_series(tmp_path / folder).series[0].pseudonym for folder in "abc"]
    # Oracle: `printf 1.2.826.1 | sha256sum`.
    assert names[0] == names[1] == "ct_47929f9f30262b19"
    assert names[2] != names[0]


def test_names_by_folder(tmp_path: Path, write_dicom: Writer, scan: np.ndarray) -> None:
    root = tmp_path / "export 1"
    write_dicom(root / "anna" / "thorax", scan, uid="1.2.826.1")
    found = find_series(root).series
    assert names_by_folder(found, root) == ["export 1"]
    # One series in two folders is called as the folder above them.
    write_dicom(root / "bert" / "x", scan[:4], uid="1.2.826.2")
    files = write_dicom(root / "bert" / "y", scan, uid="1.2.826.2")
    for file in files[:4]:
        file.unlink()
    for uid in ("1.2.826.3", "1.2.826.4"):
        write_dicom(root / "carl", scan, uid=uid)
    write_dicom(root, scan, uid="1.2.826.5")
    found = find_series(root).series
    hashes = [series.pseudonym for series in found]
    assert names_by_folder(found, root) == [
        "anna_thorax",
        "bert",
        f"carl_{hashes[2]}",
        f"carl_{hashes[3]}",
        hashes[4],
    ]
    assert all(check_series(series, "a").slices == 8 for series in found)


@pytest.mark.parametrize("at", [0, 3])
def test_one_saved_screen_does_not_decide_for_its_series(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray, at: int
) -> None:
    def save_screen(one: Any, index: int) -> None:
        one.InstanceNumber = index
        # The first file that is found, or one in between.
        if index == 8:
            one.ImageType = ["DERIVED", "SECONDARY", "SCREEN SAVE"]

    files = write_dicom(tmp_path, np.concatenate([scan, scan[:1]]), change=save_screen)
    order = [files[i] for i in (*range(at), 8, *range(at, 8))]
    for number, file in enumerate(order):
        file.rename(tmp_path / f"{number:02d}")
    found = find_series(tmp_path)
    (series,) = found.series
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_series(series, "a").image), scan)
    (left,) = found.left_out
    assert left.reason.startswith("a projection or rendering") and len(left.series.slices) == 1
    assert left.series.pseudonym != series.pseudonym


def test_an_acquisition_number_per_rotation_is_no_phase(
    tmp_path: Path, write_dicom: Writer, scan: np.ndarray
) -> None:
    write_dicom(tmp_path, scan, change=lambda one, i: setattr(one, "AcquisitionNumber", 1 + i // 2))
    (series,) = find_series(tmp_path).series
    assert len(series.slices) == 8 and series.part == 0
