"""What is known of each image: resume, images that changed, unusable ones, damaged lines."""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.planners import records
from screener_nnu.planners.fingerprint import analyse_case, summarise
from screener_nnu.planners.lock import only_run
from screener_nnu.planners.records import RECORDS_FILE, collect_records
from screener_nnu.preprocessing.source_state import SourceState

SHAPE = (16, 50, 64)
Writer = Callable[[Path, str, np.ndarray], Path]
Person = Callable[..., np.ndarray]


def test_worker_processes_give_the_same(cases: dict[str, Path], tmp_path: Path) -> None:
    alone = collect_records(cases, tmp_path / "one", 1)
    assert collect_records(cases, tmp_path / "two", 2) == alone
    lines = (tmp_path / "two" / RECORDS_FILE).read_text().splitlines()
    assert sorted(json.loads(line)["case"] for line in lines) == ["p0", "p1", "p2"]


def test_a_killed_run_goes_on_where_it_stopped(
    cases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two records are whole, the third is torn: only that one is computed again."""
    complete = collect_records(cases, tmp_path, 1)
    file = tmp_path / RECORDS_FILE
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:2]) + "\n" + lines[2][: len(lines[2]) // 2])
    done: list[str] = []

    def noted(case: str, path: Path, modality: str) -> dict:
        done.append(case)
        return analyse_case(case, path, modality)

    monkeypatch.setattr(records, "analyse_case", noted)
    assert collect_records(cases, tmp_path, 1) == complete
    assert done == [json.loads(lines[2])["case"]]
    # What it wrote is whole again, and a third run has nothing to do.
    assert [json.loads(line) for line in file.read_text().splitlines()]
    assert collect_records(cases, tmp_path, 1) == complete and len(done) == 1


def test_records_of_other_files_and_other_cases_are_not_taken(
    cases: dict[str, Path], tmp_path: Path, write: Writer, person: Person
) -> None:
    collect_records(cases, tmp_path / "out", 1)
    moved = {"p0": cases["p0"], "p1": write(tmp_path / "elsewhere", "p1", person(7))}
    records = collect_records(moved, tmp_path / "out", 1)
    assert [r["case"] for r in records] == ["p0", "p1"]
    assert records[1] == analyse_case("p1", moved["p1"])


def test_skipped_cases_keep_their_reason_and_are_tried_again(
    cases: dict[str, Path], tmp_path: Path, write: Writer, person: Person
) -> None:
    folder = tmp_path / "raw"
    cases["broken"] = folder / "broken_0000.nii.gz"
    cases["broken"].write_bytes(b"no image")
    cases["mr"] = write(folder, "mr", np.abs(person(0)))
    cases["air"] = write(folder, "air", np.full(SHAPE, -1000, np.int16))
    summary = summarise(collect_records(cases, tmp_path / "out", 1))
    assert set(summary["skipped"]) == {"broken", "mr", "air"}
    assert "cannot be read" in summary["skipped"]["broken"]
    assert "HU + 1024" in summary["skipped"]["mr"]
    assert "air" in summary["skipped"]["air"]
    assert set(summary["cases"]) == {"p0", "p1", "p2"} and len(summary["spacings"]) == 3
    write(folder, "broken", person(5))
    again = summarise(collect_records(cases, tmp_path / "out", 1))
    assert set(again["skipped"]) == {"mr", "air"} and "broken" in again["cases"]


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases that are analysed, in this process."""
    done: list[str] = []

    def noted(case: str, path: Path, modality: str) -> dict:
        done.append(case)
        return analyse_case(case, path, modality)

    monkeypatch.setattr(records, "analyse_case", noted)
    return done


def test_an_unchanged_image_costs_one_stat(
    cases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, analysed: list[str]
) -> None:
    first = collect_records(cases, tmp_path / "out", 1)
    written = (tmp_path / "out" / RECORDS_FILE).stat().st_mtime_ns
    analysed.clear()
    looked_at: list[Path] = []
    original = Path.stat

    def noted(path: Path, **options: bool) -> os.stat_result:
        looked_at.append(path)
        return original(path, **options)

    def refused(path: Path) -> SourceState:
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(Path, "stat", noted)
    monkeypatch.setattr(SourceState, "of", refused)
    assert collect_records(cases, tmp_path / "out", 1) == first and not analysed
    assert [path for path in looked_at if path in cases.values()] == list(cases.values())
    monkeypatch.undo()
    assert (tmp_path / "out" / RECORDS_FILE).stat().st_mtime_ns == written


def test_record_holds_the_state_of_its_image(cases: dict[str, Path], tmp_path: Path) -> None:
    for record in collect_records(cases, tmp_path / "out", 1):
        state = SourceState.of(cases[record["case"]])
        assert SourceState.from_dict(record["source"]) == state


def test_touched_and_moved_images_are_not_analysed_again(
    cases: dict[str, Path], tmp_path: Path, analysed: list[str]
) -> None:
    first = collect_records(cases, tmp_path / "out", 1)
    os.utime(cases["p0"], (1, 1))
    cases["p1"] = Path(shutil.move(cases["p1"], tmp_path / "p1_moved.nii.gz"))
    analysed.clear()
    second = collect_records(cases, tmp_path / "out", 1)
    assert not analysed
    assert second[0] == {**first[0], "source": SourceState.of(cases["p0"]).to_dict()}
    assert second[1] == {**first[1], "image": str(cases["p1"])}
    # The file knows that, too, with a line a case.
    lines = (tmp_path / "out" / RECORDS_FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == second


def test_replaced_image_is_analysed_again(
    cases: dict[str, Path],
    tmp_path: Path,
    write: Writer,
    person: Person,
    analysed: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    collect_records(cases, tmp_path / "out", 1)
    write(tmp_path / "raw", "p2", person(8))
    analysed.clear()
    with caplog.at_level(logging.INFO):
        found = collect_records(cases, tmp_path / "out", 1)
    assert analysed == ["p2"] and found[2] == analyse_case("p2", cases["p2"])
    assert "images that changed since they were read last: p2" in caplog.messages


def test_verification_looks_at_content_and_not_at_time(
    cases: dict[str, Path], tmp_path: Path, analysed: list[str]
) -> None:
    collect_records(cases, tmp_path / "out", 1)
    path = cases["p1"]
    times, content = path.stat(), bytearray(path.read_bytes())
    content[9] ^= 1  # the operating system in the header of a gzip file
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    analysed.clear()
    collect_records(cases, tmp_path / "out", 1)
    assert not analysed
    collect_records(cases, tmp_path / "out", 1, verify=True)
    assert analysed == ["p1"]


def test_records_of_an_earlier_version_are_made_once_more(
    cases: dict[str, Path], tmp_path: Path, analysed: list[str]
) -> None:
    first = collect_records(cases, tmp_path, 1)
    file = tmp_path / RECORDS_FILE
    old = [{k: v for k, v in r.items() if k not in ("source", "body_share")} for r in first]
    file.write_text("".join(json.dumps(record) + "\n" for record in old))
    analysed.clear()
    assert collect_records(cases, tmp_path, 1) == first and analysed == ["p0", "p1", "p2"]
    assert collect_records(cases, tmp_path, 1) == first and len(analysed) == 3


def test_damaged_and_foreign_lines_are_passed_over(
    cases: dict[str, Path], tmp_path: Path, analysed: list[str]
) -> None:
    first = collect_records(cases, tmp_path, 1)
    file = tmp_path / RECORDS_FILE
    good = file.read_bytes().splitlines()
    odd = [b"5", b"null", b'{"case": ["p0"], "image": "x", "skipped": "y"}', b"\xff\xfe\x00", b""]
    odd += [b'{"case": "p0", "image": "x"}', b"[]", good[2][:80] + good[1]]
    file.write_bytes(b"\n".join([*odd, good[0], *odd, good[2]]))
    analysed.clear()
    assert collect_records(cases, tmp_path, 1) == first and analysed == ["p1"]
    assert [json.loads(line) for line in file.read_text().splitlines()] == first


def test_scans_that_vanished_are_named(
    cases: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collect_records(cases, tmp_path, 1)
    del cases["p0"], cases["p2"]
    assert [r["case"] for r in collect_records(cases, tmp_path, 1)] == ["p1"]
    assert caplog.messages == ["no longer there, of the scans of an earlier run: p0, p2"]
    caplog.clear()
    collect_records(cases, tmp_path, 1)
    assert not caplog.messages


def test_unusable_image_keeps_its_state(cases: dict[str, Path], tmp_path: Path) -> None:
    """So that what was prepared of the image that lay there before does not pass for it."""
    cases["p1"].write_bytes(b"no image")
    summary = summarise(collect_records(cases, tmp_path / "out", 1))
    entry = summary["sources"]["p1"]
    assert entry["image"] == str(cases["p1"]) and "p1" in summary["skipped"]
    assert SourceState.from_dict(entry["source"]) == SourceState.of(cases["p1"])


def test_runs_beside_each_other_do_not_write_into_each_others_lines(tmp_path: Path) -> None:
    file = tmp_path / RECORDS_FILE
    file.write_text("torn")

    def add(name: str) -> None:
        for number in range(50):
            records._append(file, {"case": f"{name}{number}", "text": name * 30_000})

    threads = [threading.Thread(target=add, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Both may end the torn line: an empty one more does no harm.
    lines = [json.loads(line) for line in file.read_text().splitlines()[1:] if line]
    assert len(lines) == 200 and all(line["text"] == line["case"][0] * 30_000 for line in lines)


def test_one_run_waits_for_the_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.wait()
        with only_run(tmp_path):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with caplog.at_level(logging.INFO), only_run(tmp_path):
        inside.set()
        thread.join(0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert caplog.messages == [f"another run is planning {tmp_path.name}: waiting for it"]
