"""`screener_preview_medmix` as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from screener_nnu.commands.preview_medmix import main
from screener_nnu.plans import read_plan


def change_plan(world: Any, part: str, **changes: Any) -> None:
    """Edits a part of our settings, as a person does."""
    path = world.preprocessed / "ScreenerPlans.json"
    values = read_plan(path).to_dict()
    values["screener"][part].update(changes)
    path.write_text(json.dumps(values))


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1
    return capsys.readouterr().err


def test_a_sheet_of_the_plan(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheet = tmp_path / "out" / "sheet.png"
    main(["-d", "901", "-o", str(sheet), "--cases", "3"])
    out = capsys.readouterr().out
    assert f"{sheet}: 3 cases in 4 classes of medmix" in out
    shares = re.fullmatch(r"patches cover (\d+)%, (\d+)%, (\d+)% of an image", out.splitlines()[1])
    assert shares is not None
    one, two, three = map(int, shares.groups())
    assert 0 < one <= two <= three < 25 and one < three
    first = imread(sheet)
    assert first.shape[1] == 120 * 1.6 * 8
    main(["-d", "901", "-o", str(sheet), "--cases", "3"])  # ours may be replaced
    assert (imread(sheet) == first).all()
    main(["-d", "901", "-o", str(sheet), "--cases", "3", "--seed", "8"])
    assert (imread(sheet) != first).any()


def test_another_change(world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    for name, classes in (("rotation", 4), ("none", 1), ("cutpaste", 4)):
        main(["-d", "901", "-o", str(sheet), "--cases", "2", "--shift", name])
        assert f"2 cases in {classes} classes of {name}" in capsys.readouterr().out
        assert imread(sheet).shape[1] == pytest.approx(120 * 1.6 * 2 * classes, abs=1)
    error = error_of(["-d", "901", "-o", str(sheet), "--shift", "turn"], capsys)
    assert "no shift 'turn'; known: medmix, cutpaste" in error


def test_normal_cases_alone_are_shown(
    world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_plan(world, "split", normal=world.plan().settings.split.train[:2])
    main(["-d", "901", "-o", str(tmp_path / "sheet.png")])
    assert "2 cases in 4 classes" in capsys.readouterr().out


def test_what_is_refused(world: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    words = ["-d", "901", "-o", str(sheet)]
    assert "a sheet ends in .png" in error_of(["-d", "901", "-o", str(tmp_path / "a.jpg")], capsys)
    assert "--cases 1: give 2 or more" in error_of([*words, "--cases", "1"], capsys)
    sheet.write_bytes(b"mine")
    assert f"{sheet} is not ours" in error_of(words, capsys)
    assert sheet.read_bytes() == b"mine"
    sheet.unlink()
    change_plan(world, "pretext", options={"shift": "rotation", "classes": 5})
    assert "the shift 'rotation' makes at most 4 classes, but 5 are asked for" in error_of(
        words, capsys
    )
    change_plan(world, "pretext", options={}, medmix={"edge": [0.7, 0.8]})
    assert "2 patches do not fit into an image" in error_of(words, capsys)
    change_plan(world, "pretext", medmix={})
    next(world.cases.glob("*.json")).unlink()
    assert "is not preprocessed: run screener_plan_and_preprocess" in error_of(words, capsys)
    assert not sheet.exists()
