"""`screener_predict` on a folder of pictures, with a model that needs no training."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from screener_nnu.calibration import store
from screener_nnu.commands import predict as command
from screener_nnu.inference import predict
from tests.made_pictures import predictor, write


@dataclass(frozen=True)
class Model:
    """What the command asks of a model."""

    title: str = "difference"
    unit: str = "none"

    @property
    def spec(self) -> Model:
        return self

    def load(self, device: Any) -> SimpleNamespace:
        return SimpleNamespace(module=SimpleNamespace(by_position=False))


@pytest.fixture(autouse=True)
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "chosen_model", lambda *_: Model())
    monkeypatch.setattr(store, "trained_identity", lambda model: "0" * 16)
    monkeypatch.setattr(store, "load_calibration", lambda model: None)
    monkeypatch.setattr(predict.Predictor, "of", lambda loaded, device: predictor())


def run(folder: Path, *words: str) -> Path:
    out = folder / "out"
    command.main(["-d", "602", "-i", str(folder / "in"), "-o", str(out), "-device", "cpu", *words])
    return out


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as left:
        run(folder, *words)
    assert left.value.code == 1
    return capsys.readouterr().err


def test_all_that_can_be_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, name in enumerate(("a_0000.png", "b_0000.png", "left/a.png")):
        write(tmp_path / "in" / name, seed=i)
    wanted = ("--threshold", "60", "--findings", "--min_px", "20", "--overlay", "--page")
    out = run(tmp_path, *wanted)
    assert f"3 maps in {out}, 0 pictures skipped" in capsys.readouterr().out
    ends = (
        ".tif", "_body.png", "_mask.png", ".json", "_findings.csv", "_findings.json",
        "_findings.png", "_overlay.png", ".html", ".png",
    )  # fmt: skip
    expected = {f"{case}{end}" for case in ("a", "b", "left_a") for end in ends}
    expected |= {"cases.csv", "contact_sheet.png", "index.html", ".screener_files"}
    assert {path.name for path in out.iterdir()} == expected
    rows = list(csv.DictReader((out / "cases.csv").open(newline="")))
    assert [int(row["findings"]) for row in rows] == [1, 1, 1]
    assert all(20 <= int(row["findings_px"]) < 60 for row in rows)
    assert "3 pictures, the one with" in (out / "index.html").read_text()
    # Again, with the output below the input: nothing is taken for a picture.
    stamp = (out / "a.tif").stat().st_mtime_ns
    out.rename(tmp_path / "in" / "maps")
    command.main(["-d", "602", "-i", str(tmp_path / "in"), "-o", str(tmp_path / "in" / "maps")])
    assert "3 maps in" in capsys.readouterr().out
    assert (tmp_path / "in" / "maps" / "a.tif").stat().st_mtime_ns == stamp


def test_what_pictures_have_not_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "a.png")
    assert "and pictures are none: leave it out" in refused(tmp_path, capsys, "--dicom")
    words = ("--threshold", "60", "--findings", "--min_ml", "2")
    assert re.search("--min_ml is a volume in a scan.*--min_px", refused(tmp_path, capsys, *words))
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"")
    message = refused(tmp_path, capsys)
    assert "holds scans (b.nii.gz) and pictures (a.png)" in message


def test_scans_have_no_overlay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"")
    assert "--page shows them" in refused(tmp_path, capsys, "--overlay")
    words = ("--threshold", "6", "--findings", "--min_px", "2")
    assert "--min_px is an area in a picture" in refused(tmp_path, capsys, *words)


def test_a_sheet_of_a_person_is_not_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "contact_sheet.png").write_text("mine")
    assert "contact_sheet.png is not ours" in refused(tmp_path, capsys, "--overlay")
    write(tmp_path / "in" / "broken.png").write_bytes(b"x")
    message = refused(tmp_path, capsys)
    assert "1 of 2 pictures have no map" in message
    assert (tmp_path / "out" / "contact_sheet.png").read_text() == "mine"
