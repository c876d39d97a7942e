"""Files of ours are replaced and removed, those of others never."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from screener_nnu import ownership
from screener_nnu.errors import ScreenerError
from screener_nnu.files import OutputError, remove, replacing
from screener_nnu.ownership import RECORDS, OwnedFolder, foreign_files, own_folder
from screener_nnu.workers import run_cases


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Each test is a process of its own, as far as folders are concerned."""
    ownership._owned.clear()
    yield
    ownership._owned.clear()


def write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def again(folder: Path) -> OwnedFolder:
    """The folder as a later process finds it."""
    ownership._owned.clear()
    return own_folder(folder)


def test_ours_is_replaced_and_theirs_is_not(tmp_path: Path) -> None:
    own_folder(tmp_path)
    ours, theirs = tmp_path / "below" / "ours.csv", tmp_path / "theirs.csv"
    theirs.write_text("theirs")
    for text in ("one", "two"):
        write(ours, text)
        assert ours.read_text() == text
    for touch in (lambda: write(theirs, "ours"), lambda: remove(theirs)):
        with pytest.raises(ScreenerError, match="theirs.csv is not ours"):
            touch()
    assert theirs.read_text() == "theirs"
    assert foreign_files([ours, theirs, tmp_path / "none"]) == [theirs]
    remove(ours)
    assert not ours.exists() and not list(tmp_path.rglob("*.tmp"))


def test_a_later_process_knows_what_earlier_ones_wrote(tmp_path: Path) -> None:
    own_folder(tmp_path)
    write(tmp_path / "a", "one")
    owned = again(tmp_path)
    assert not owned.is_new and foreign_files([tmp_path / "a"]) == []
    write(tmp_path / "a", "two")
    # Killed between the record and the move into place: the old content is ours, too.
    (tmp_path / "a").write_text("one")
    again(tmp_path)
    write(tmp_path / "a", "three")
    (tmp_path / "a").write_text("changed by hand")
    again(tmp_path)
    with pytest.raises(ScreenerError, match="changed since we wrote it"):
        write(tmp_path / "a", "four")


def test_a_copy_of_the_folder_is_ours_whatever_its_times(tmp_path: Path) -> None:
    own_folder(tmp_path / "one")
    write(tmp_path / "one" / "a", "text")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    os.utime(tmp_path / "two" / "a", (1, 1))
    own_folder(tmp_path / "two")
    assert foreign_files([tmp_path / "two" / "a"]) == []
    # The same time and size with another content, as a careful attacker or a coarse clock has it.
    os.utime(tmp_path / "two" / "a", (2, 2))
    (tmp_path / "two" / "a").write_text("tixt")
    os.utime(tmp_path / "two" / "a", (1, 1))
    assert foreign_files([tmp_path / "two" / "a"]) == [tmp_path / "two" / "a"]


def test_links_and_folders_are_never_ours(tmp_path: Path) -> None:
    own_folder(tmp_path)
    write(tmp_path / "a", "text")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    names = [tmp_path / name for name in ("link", "broken", "folder")]
    assert foreign_files(names) == names


def test_torn_and_strange_records_cost_nothing_but_themselves(tmp_path: Path) -> None:
    own_folder(tmp_path)
    write(tmp_path / "a", "text")
    (file,) = (tmp_path / RECORDS).iterdir()
    file.write_bytes(b"[1]\nnull\n\xff\xfe\n" + file.read_bytes() + b'["b", "1234')
    assert again(tmp_path).foreign([tmp_path / "a"]) == []


def test_what_another_process_has_just_written_is_ours(tmp_path: Path) -> None:
    owned = own_folder(tmp_path)
    other = OwnedFolder(tmp_path)
    (tmp_path / "a").write_text("text")
    other.record(tmp_path / "a")
    assert owned.foreign([tmp_path / "a"]) == []


def test_files_of_an_earlier_version_are_adopted_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    owned = own_folder(tmp_path)
    owned.adopt([tmp_path / "a", tmp_path / "none"])
    owned.adopt([tmp_path / "b"])
    assert owned.foreign([tmp_path / "a", tmp_path / "b"]) == [tmp_path / "b"]


def test_the_innermost_folder_decides(tmp_path: Path) -> None:
    own_folder(tmp_path)
    own_folder(tmp_path / "inner")
    write(tmp_path / "inner" / "a", "text")
    assert (tmp_path / "inner" / RECORDS).is_dir() and not (tmp_path / RECORDS).exists()


def test_records_name_neither_machine_nor_person(tmp_path: Path) -> None:
    own_folder(tmp_path)
    write(tmp_path / "a", "text")
    (file,) = (tmp_path / RECORDS).iterdir()
    name, identity, stamp = json.loads(file.read_text())
    assert name == "a" and len(identity) == 16 and len(stamp) == 2
    assert len(file.stem) == 32 and set(file.stem) <= set("0123456789abcdef")


def _write_in_worker(case: str, path: Path) -> str:
    try:
        write(path, case)
    except ScreenerError as error:
        return str(error)
    return ""


def test_processes_that_work_for_us_keep_to_it(tmp_path: Path) -> None:
    own_folder(tmp_path)
    (tmp_path / "theirs").write_text("theirs")
    cases = {"ours": tmp_path / "ours", "theirs": tmp_path / "theirs"}
    outcomes = dict(run_cases(_write_in_worker, cases, 1, str))
    assert outcomes["ours"] == "" and "is not ours" in outcomes["theirs"]
    assert again(tmp_path).foreign(cases.values()) == [tmp_path / "theirs"]


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_place_that_can_hold_nothing(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" if kind == "file" else tmp_path / "file" / "below"
    with pytest.raises(ScreenerError, match="cannot hold the output .*give another folder"):
        own_folder(place)


def test_nothing_is_made_before_something_is_written(tmp_path: Path) -> None:
    own_folder(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_file_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"a cannot be written \(no space left\): free some"):
        write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1
