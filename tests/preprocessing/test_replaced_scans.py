"""Scans that were replaced since they were prepared, and files that are not ours to remove."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.case_files import CaseFolder
from screener_nnu.preprocessing.marker import Marker
from screener_nnu.preprocessing.pipeline import Summary, preprocess_dataset
from screener_nnu.preprocessing.source_state import SourceState

Writer = Callable[..., Path]
Person = Callable[..., np.ndarray]
Prepare = Callable[..., Summary]
SMALL = (2, 2, 2)


@pytest.fixture
def cases(write_image: Writer, person: Person) -> dict[str, Path]:
    return {
        f"case_{i}": write_image(person(seed=i), name=f"raw/case_{i}_0000.nii.gz") for i in range(3)
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "cases"


@pytest.fixture
def prepare(cases: dict[str, Path], settings: PreprocessingSettings, folder: Path) -> Prepare:
    """Prepares the cases as a run does that knows how the scans are now."""

    def run(on_replaced: Callable[[list[str]], None] | None = None) -> Summary:
        scans = {case: SourceState.of(path) for case, path in cases.items()}
        return preprocess_dataset(
            cases, settings, folder, SMALL, 0, scans=scans, on_replaced=on_replaced
        )

    return run


def forget_sources(folder: Path) -> None:
    """Makes the markers those of a version that did not note the scans."""
    for file in folder.glob("*.json"):
        values, times = json.loads(file.read_text()), file.stat()
        del values["source"]
        file.write_text(json.dumps(values, indent=2) + "\n")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_marker_knows_its_scan(prepare: Prepare, cases: dict[str, Path], folder: Path) -> None:
    prepare()
    for case, path in cases.items():
        assert CaseFolder(folder).marker(case).source == SourceState.of(path)


def test_replaced_scan_is_prepared_again_and_named(
    prepare: Prepare,
    cases: dict[str, Path],
    folder: Path,
    write_image: Writer,
    person: Person,
    caplog: pytest.LogCaptureFixture,
) -> None:
    prepare()
    before, old = times(folder), CaseFolder(folder).read("case_1", "hu")
    state = cases["case_1"].stat()
    write_image(person(seed=9), name="raw/case_1_0000.nii.gz")
    os.utime(cases["case_1"], ns=(state.st_atime_ns, state.st_mtime_ns))
    seen: list[list[str]] = []

    def note(replaced: list[str]) -> None:
        # While it is named, it is still there: a run that is killed now names it again.
        seen.append([*replaced, *CaseFolder(folder).finished()])

    summary = prepare(note)
    assert (summary.done, summary.already_done, summary.replaced) == (1, 2, ["case_1"])
    assert seen == [["case_1", *cases]]
    assert "1 scan was replaced since it was prepared: case_1" in caplog.messages
    assert not np.array_equal(CaseFolder(folder).read("case_1", "hu"), old)
    after = times(folder)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {name for name in before if name.startswith("case_1")}
    caplog.clear()
    assert prepare().done == 0 and not caplog.messages


def test_many_replaced_scans_are_one_warning(
    cases: dict[str, Path],
    prepare: Prepare,
    write_image: Writer,
    person: Person,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cases |= {f"d{i}": write_image(person(seed=i), name=f"raw/d{i}.nii.gz") for i in range(5)}
    prepare()
    for path in cases.values():
        write_image(person(seed=20), name=f"raw/{path.name}")
    with caplog.at_level(logging.WARNING):
        assert prepare().done == 8
    words = "case_0, case_1, case_2, d0, d1 and 3 more"
    assert caplog.messages == [f"8 scans were replaced since they were prepared: {words}"]


def test_touched_and_copied_scans_are_left_alone(
    prepare: Prepare, cases: dict[str, Path], folder: Path
) -> None:
    prepare()
    before = times(folder)
    os.utime(cases["case_0"])
    moved = cases["case_1"].with_name("moved.nii.gz")
    cases["case_1"] = Path(shutil.copyfile(cases["case_1"], moved))
    summary = prepare()
    assert (summary.done, summary.already_done, summary.replaced) == (0, 3, [])
    assert times(folder) == before


def test_replaced_scan_that_is_unusable_leaves_no_old_case(
    prepare: Prepare, cases: dict[str, Path], folder: Path
) -> None:
    prepare()
    cases["case_2"].write_bytes(cases["case_2"].read_bytes()[:3000])
    summary = prepare()
    assert summary.replaced == ["case_2"] and "cut short" in summary.skipped["case_2"]
    assert not [file for file in folder.iterdir() if "case_2" in file.name]


def test_cases_of_an_earlier_version_count_by_time(
    prepare: Prepare, cases: dict[str, Path], folder: Path
) -> None:
    """A scan that is older than its marker is current, a newer one is made again."""
    prepare()
    forget_sources(folder)
    before = times(folder)
    later = (folder / "case_2.json").stat().st_mtime_ns + 1_000_000
    os.utime(cases["case_2"], ns=(later, later))
    summary = prepare()
    assert (summary.done, summary.already_done, summary.replaced) == (1, 2, ["case_2"])
    kept = {name for name in before if not name.startswith("case_2")}
    assert {name: times(folder)[name] for name in kept} == {name: before[name] for name in kept}


def test_cases_of_an_earlier_version_learn_their_scan(
    prepare: Prepare, cases: dict[str, Path], folder: Path, write_image: Writer, person: Person
) -> None:
    """From then on the content counts, also of a scan with an old time."""
    prepare()
    forget_sources(folder)
    prepare()
    assert CaseFolder(folder).marker("case_0").source == SourceState.of(cases["case_0"])
    write_image(person(seed=8), name="raw/case_0_0000.nii.gz")
    os.utime(cases["case_0"], ns=(1, 1))
    assert prepare().replaced == ["case_0"]


def test_an_unchanged_case_costs_one_marker(
    prepare: Prepare, cases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare()
    read: list[str] = []
    original = Marker.read

    def noted(file: Path) -> Marker:
        read.append(file.stem)
        return original(file)

    monkeypatch.setattr(Marker, "read", noted)
    prepare()
    assert sorted(read) == sorted(cases)


@pytest.mark.parametrize("name", ["case_1.json", "case_1_hu.b2nd", "case_1_body.b2nd"])
def test_files_of_somebody_else_are_refused(prepare: Prepare, folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_text('{"author": "a colleague", "note": "ours"}')
    with pytest.raises(
        ScreenerError, match=f"{folder} holds files that are not ours, {name} among"
    ):
        prepare()
    assert [file.name for file in folder.iterdir()] == [name]
    assert (folder / name).read_text() == '{"author": "a colleague", "note": "ours"}'


def test_what_a_killed_run_left_is_ours(prepare: Prepare, folder: Path) -> None:
    """Before the first marker: whole arrays, and halves under hidden names."""
    prepare()
    for file in folder.iterdir():
        if file.name != "case_0_hu.b2nd":
            file.unlink()
    (folder / ".case_0_body.b2nd.tmp").write_bytes(b"half")
    assert prepare().done == 3
    assert len(list(folder.iterdir())) == 12


def test_a_torn_marker_beside_its_arrays_is_ours(
    prepare: Prepare, cases: dict[str, Path], folder: Path
) -> None:
    for case in ("case_1", "case_2"):
        del cases[case]
    prepare()
    (folder / "case_0.json").write_text('{"frame": {')
    assert prepare().done == 1 and CaseFolder(folder).whole_marker("case_0")
