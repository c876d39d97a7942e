"""An import of pictures goes on where it stopped, and harms nothing that is there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.importing import kinds, pictures
from screener_nnu.preprocessing.pictures import write_picture


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "imagesTr").iterdir()}


def test_a_second_run_decodes_nothing(importer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    importer.normals(12)
    importer.run()
    before, table = times(importer.folder), importer.table()

    def fail(*arguments: Any) -> None:
        raise AssertionError("a finished case was read again")

    monkeypatch.setattr(kinds, "picture_header", fail)
    monkeypatch.setattr(kinds, "read_picture", fail)
    said = importer.run()
    assert "12 kept" in said and times(importer.folder) == before and importer.table() == table


def test_more_pictures_and_a_deleted_one(importer: Any) -> None:
    importer.normals(12)
    importer.run()
    before = times(importer.folder)
    (importer.folder / "imagesTr" / "n003_0000.png").unlink()
    importer.write("new.png")
    assert "11 kept, 2 taken" in importer.run()
    after = times(importer.folder)
    assert len(after) == 13 and all(
        after[name] == before[name] for name in before if name != "n003_0000.png"
    )
    # What is no longer in the folder stays a case.
    (importer.source / "n001.png").unlink()
    assert "12 kept" in importer.run() and len(importer.table()) == 13
    assert json.loads((importer.folder / "dataset.json").read_text())["numTraining"] == 13
    # What is neither here nor there is none any more.
    (importer.folder / "imagesTr" / "n001_0000.png").unlink()
    assert "12 kept" in importer.run() and len(importer.table()) == 12


def test_a_data_set_that_was_emptied_is_free_for_another_form(importer: Any) -> None:
    importer.normals(12)
    importer.run()
    for path in (importer.folder / "imagesTr").iterdir():
        path.unlink()
    assert "12 taken" in importer.run("--colour", "rgb")


def test_a_changed_source_is_said(importer: Any) -> None:
    importer.normals(12)
    importer.run()
    before = times(importer.folder)
    write_picture(importer.pixels("another"), importer.source / "n002.png")
    said = importer.run()
    assert "kept n002.png: its file has changed since it was imported: delete n002_0000.png" in said
    assert times(importer.folder) == before
    (importer.folder / "imagesTr" / "n002_0000.png").unlink()
    assert "1 taken" in importer.run()


def test_stopped_in_between(importer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    importer.normals(12)
    real = pictures.write_case

    def stop(case: str, *arguments: Any, **options: Any) -> Any:
        if case == "n004":
            raise KeyboardInterrupt
        return real(case, *arguments, **options)

    monkeypatch.setattr(pictures, "write_case", stop)
    with pytest.raises(SystemExit):
        importer.run()
    taken = [row["case"] for row in importer.table()]
    assert 0 < len(taken) < 12 and len(times(importer.folder)) == len(taken)
    monkeypatch.setattr(pictures, "write_case", real)
    assert f"{len(taken)} kept, {12 - len(taken)} taken" in importer.run()


def test_killed(importer: Any) -> None:
    """A process that is killed has written no report: the journal tells what was done."""
    importer.normals(400)
    code = "import sys; from screener_nnu.commands.import_data import main; main(sys.argv[1:])"
    words = ["-i", importer.source, "-d", 610, "--name", "Pictures", "-np", 0]
    command = [sys.executable, "-c", code, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        images = importer.folder / "imagesTr"
        while not images.is_dir() or len(os.listdir(images)) < 20:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (importer.folder / "import.json").exists()
    there = sum(not name.startswith(".") for name in os.listdir(images))
    (images / ".n399_0000.png.77.tmp").write_bytes(b"half")
    with (importer.folder / ".pictures.jsonl").open("a") as stream:
        stream.write('{"source": "n3')
    said = importer.run()
    kept = int(said.split(" kept, ")[0].split()[-1])
    assert there - 1 <= kept <= there and f"{400 - kept} taken" in said
    assert len(importer.table()) == 400 and len(os.listdir(images)) == 400
    assert not (importer.folder / ".pictures.jsonl").exists()


def test_dry_run(importer: Any) -> None:
    importer.normals(12)
    assert "12 would be taken" in importer.run("--dry_run")
    assert not importer.folder.exists()


def test_files_that_are_not_ours_stay(importer: Any) -> None:
    importer.normals(12)
    theirs = importer.folder / "imagesTr" / "n003_0000.png"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    said = importer.run()
    assert f"skipped n003.png: {theirs} is there and is not ours" in said and "11 taken" in said
    assert theirs.read_bytes() == b"theirs"
    (importer.folder / "dataset.json").write_text('{"file_ending": ".png"}')
    assert "it stays as it is" in importer.run()
    table = importer.folder / "pictures.csv"
    table.write_text("mine")
    assert "not ours" in importer.refused() and table.read_text() == "mine"


def test_a_data_set_of_scans_is_left_alone(importer: Any) -> None:
    importer.normals(12)
    importer.folder.mkdir()
    (importer.folder / "dataset.json").write_text('{"file_ending": ".nii.gz"}')
    assert "has images in .nii.gz: choose another number" in importer.refused()
    (importer.folder / "dataset.json").unlink()
    (importer.folder / "import.json").write_text('{"files_without_series": {}, "series": []}')
    assert "not that of an import of pictures" in importer.refused()
