from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing import case_files
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.pipeline import preprocess_dataset

Writer = Callable[..., Path]
Person = Callable[..., np.ndarray]
SMALL = (2, 2, 2)


@pytest.fixture
def cases(write_image: Writer, person: Person) -> dict[str, Path]:
    return {
        f"case_{i}": write_image(person(seed=i), name=f"raw/case_{i}_0000.nii.gz") for i in range(4)
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_all_cases_are_prepared_and_skipped_the_second_time(
    cases: dict[str, Path], settings: PreprocessingSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "cases"
    first = preprocess_dataset(cases, settings, folder, SMALL, 1)
    assert (first.done, first.already_done, first.skipped) == (4, 0, {})
    assert CaseFolder(folder).finished() == sorted(cases)
    before = contents(folder)
    size = sum(len(v) for k, v in before.items()) / 4
    assert first.bytes_per_scan == pytest.approx(size, rel=0.01)
    stamps = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    second = preprocess_dataset(cases, settings, folder, SMALL, 1)
    assert (second.done, second.already_done) == (0, 4)
    assert {f.name: f.stat().st_mtime_ns for f in folder.iterdir()} == stamps
    report = json.loads((tmp_path / "data" / "preprocessing_summary.json").read_text())
    assert report["already_done"] == 4 and report["done"] == 0


def test_a_turned_bit_is_found_when_asked_for(
    cases: dict[str, Path],
    settings: PreprocessingSettings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also beside a marker of an earlier version, which knows no checksums."""
    folder = tmp_path / "data" / "cases"
    preprocess_dataset(cases, settings, folder, SMALL, 0)
    before = contents(folder)
    file, old = folder / "case_1_equalised.b2nd", folder / "case_2.json"
    turned = bytearray(file.read_bytes())
    turned[len(turned) // 2] ^= 0x10
    file.write_bytes(turned)
    marker = json.loads(old.read_text())
    del marker["crc32"]
    old.write_text(json.dumps(marker))
    assert preprocess_dataset(cases, settings, folder, SMALL, 0).done == 0
    assert preprocess_dataset(cases, settings, folder, SMALL, 0, verify=True).done == 1
    assert "not as they were written: case_1" in caplog.text
    assert {**contents(folder), "case_2.json": b""} == {**before, "case_2.json": b""}


def test_parts_make_the_same_as_one_run(
    cases: dict[str, Path], settings: PreprocessingSettings, tmp_path: Path
) -> None:
    whole, shared = tmp_path / "a" / "cases", tmp_path / "b" / "cases"
    preprocess_dataset(cases, settings, whole, SMALL, 0)
    done = [preprocess_dataset(cases, settings, shared, SMALL, 0, k, 3).done for k in range(3)]
    assert done == [2, 1, 1]
    assert contents(whole) == contents(shared)
    names = {f.name for f in shared.parent.glob("*.json")}
    assert names == {f"preprocessing_summary_part_{k}_of_3.json" for k in range(3)}
    with pytest.raises(ScreenerError, match="counted from 0"):
        preprocess_dataset(cases, settings, shared, SMALL, 0, 3, 3)


def test_bad_cases_are_named_and_the_others_go_on(
    cases: dict[str, Path],
    settings: PreprocessingSettings,
    write_image: Writer,
    person: Person,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torn = cases["case_0"]
    torn.write_bytes(torn.read_bytes()[:5000])
    cases["flat"] = write_image(person((3, 40, 48)), name="raw/flat.nrrd")
    cases["coarse"] = write_image(person(), (9.0, 2.0, 2.0), name="raw/coarse.nrrd")
    cases["tiny"] = write_image(person(), (3.0, 0.2, 0.2), name="raw/tiny.nrrd")
    strict = replace(settings, min_slices=4, max_raw_spacing=(6.0, 0.0, 0.0))
    folder = tmp_path / "data" / "cases"
    with caplog.at_level(logging.WARNING):
        summary = preprocess_dataset(cases, strict, folder, (4, 8, 8), 0)
    assert summary.done == 3
    assert set(summary.skipped) == {"case_0", "flat", "coarse", "tiny"}
    for case, words in [
        ("case_0", "cut short"),
        ("flat", "3 slices"),
        ("coarse", "9 x 2 x 2 mm"),
        ("tiny", "16 x 24 x 24 mm"),
    ]:
        assert words in summary.skipped[case]
        lines = [r for r in caplog.messages if r.startswith(f"skipped {case}: ")]
        assert len(lines) == 1
    assert CaseFolder(folder).finished() == ["case_1", "case_2", "case_3"]


def test_other_settings_are_refused_and_change_nothing(
    cases: dict[str, Path], settings: PreprocessingSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "cases"
    first = dict(list(cases.items())[:2])
    preprocess_dataset(first, settings, folder, SMALL, 0)
    before = contents(folder)
    with pytest.raises(ScreenerError, match=rf"{folder} holds cases of other settings.*clahe_clip"):
        preprocess_dataset(cases, replace(settings, clahe_clip=0.1), folder, SMALL, 0)
    assert contents(folder) == before


def test_damaged_case_is_made_again(
    cases: dict[str, Path], settings: PreprocessingSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "cases"
    preprocess_dataset(cases, settings, folder, SMALL, 0)
    before = contents(folder)
    (folder / "case_2_hu.b2nd").write_bytes(before["case_2_hu.b2nd"][:-5])
    assert preprocess_dataset(cases, settings, folder, SMALL, 0).done == 1
    assert contents(folder) == before


def test_full_disk_stops_the_run(
    cases: dict[str, Path],
    settings: PreprocessingSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "data" / "cases"
    calls = []

    def full(number: int) -> None:
        calls.append(number)
        if len(calls) == 7:  # of the second case; the report still finds a little room
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(case_files.os, "fsync", full)
    with pytest.raises(ScreenerError, match="free some space"):
        preprocess_dataset(cases, settings, folder, SMALL, 0)
    assert CaseFolder(folder).finished() == ["case_0"]
    assert all(name.startswith("case_0") for name in os.listdir(folder))
    report = json.loads((tmp_path / "data" / "preprocessing_summary.json").read_text())
    assert report["done"] == 1


SCRIPT = """
import json, signal, sys
from pathlib import Path
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.pipeline import preprocess_dataset

if __name__ == "__main__":
    # A shell's background job ignores Ctrl-C, and hands that down to its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = json.loads(sys.argv[1])
    settings = PreprocessingSettings(**{k: tuple(v) for k, v in given["settings"].items()})
    cases = {k: Path(v) for k, v in given["cases"].items()}
    preprocess_dataset(cases, settings, Path(given["folder"]), (2, 2, 2), 1)
"""


def start(
    cases: dict[str, Path], settings: PreprocessingSettings, folder: Path
) -> subprocess.Popen[bytes]:
    names = ("spacing", "storage_spacing", "hu_clip")
    given = {
        "cases": {k: str(v) for k, v in cases.items()},
        "settings": {name: getattr(settings, name) for name in names},
        "folder": str(folder),
    }
    script = folder.parent / "run.py"
    script.write_text(SCRIPT)
    return subprocess.Popen(
        [sys.executable, str(script), json.dumps(given)], stderr=subprocess.DEVNULL
    )


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def many(write_image: Writer, person: Person) -> dict[str, Path]:
    return {
        f"p{i}": write_image(person((40, 60, 70), seed=i), name=f"many/p{i}.nii.gz")
        for i in range(12)
    }


def test_killed_in_the_middle_then_run_again(
    many: dict[str, Path], settings: PreprocessingSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "killed" / "cases"
    folder.mkdir(parents=True)
    process = start(many, settings, folder)
    wait_for(lambda: any(name.endswith("_hu.b2nd") for name in os.listdir(folder)))
    process.kill()
    process.wait()
    finished = CaseFolder(folder).finished()
    assert len(finished) < len(many)
    # The worker ends with its parent; whatever it was writing stays unfinished.
    time.sleep(0.5)
    (folder / ".p11_hu.b2nd.tmp").write_bytes(b"left over")
    (folder / "p11_hu.b2nd").write_bytes(b"left over")
    (folder / "p11.json").unlink(missing_ok=True)
    summary = preprocess_dataset(many, settings, folder, SMALL, 1)
    assert summary.done + summary.already_done == len(many)

    other = tmp_path / "whole" / "cases"
    preprocess_dataset(many, settings, other, SMALL, 0)
    assert contents(folder) == contents(other)


def test_interrupt_leaves_no_half_case(
    many: dict[str, Path], settings: PreprocessingSettings, tmp_path: Path
) -> None:
    folder = tmp_path / "stopped" / "cases"
    folder.mkdir(parents=True)
    process = start(many, settings, folder)
    wait_for(lambda: any(name.endswith(".json") for name in os.listdir(folder)))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) != 0
    finished = CaseFolder(folder).finished()
    assert 0 < len(finished) < len(many)
    assert len(os.listdir(folder)) == 4 * len(finished)
    assert (folder.parent / "preprocessing_summary.json").is_file()
