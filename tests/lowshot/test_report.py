"""What stands in the report of made-up trainings."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.stats import wilcoxon

from screener_nnu.errors import ScreenerError
from screener_nnu.lowshot.design import Design, LowShotRun
from screener_nnu.lowshot.figure import draw
from screener_nnu.lowshot.floor import Floor
from screener_nnu.lowshot.measure import Record
from screener_nnu.lowshot.report import refuse_foreign_report, write_report
from screener_nnu.lowshot.summary import summarise
from screener_nnu.ownership import RECORDS

Runs = Callable[..., list[LowShotRun]]
Made = Callable[..., list[Record]]
SETTINGS: dict[str, Any] = {
    "dataset": "Dataset502_Lesions",
    "source": "Dataset901_Trunk",
    "plans": "ScreenerPlans",
    "folds": 3,
    "seeds": 2,
    "epochs": 20,
    "iterations": 5,
    "nsd_tolerance_mm": 2.0,
    "notes": ["Pre-training of each start: 5 min of steps."],
    "finished": 24,
}


@pytest.fixture
def written(make_runs: Runs, made_up: Made, tmp_path: Path) -> tuple[str, Path, list[Record]]:
    """A report with one undefined case and one failure."""
    runs = make_runs(Design((2, 6), 3, 2, 20, 5))
    records = made_up(runs)
    nan = [r for r in records if r.case == "case_07" and r.setting.num_cases == 2]
    for record in nan:
        place = records.index(record)
        records[place] = Record(record.start, record.setting, record.case, math.nan, math.nan)
    floors = {
        "central ball": {r.setting: Floor(12.0, dict.fromkeys(r.cases["val"], 0.25)) for r in runs},
        "teacher map": {
            r.setting: Floor(3.5, {c: 0.5 for c in r.cases["val"] if c != "case_03"}) for r in runs
        },
    }
    faster = {"scratch": 0.02, "student": 0.04}
    rng = np.random.default_rng(0)
    curves = {
        run.name: np.minimum(0.6, np.arange(20) * faster[run.start]) + rng.normal(0, 0.02, 20)
        for run in runs
    }
    summary = summarise(runs, records, floors, curves)
    folder = tmp_path / "report"
    failures = {"student, 2 cases, fold 9, seed 0": "out of memory"}
    text = write_report(folder, summary, SETTINGS, runs, records, floors, failures)
    return text, folder, records


def means(records: list[Record], start: str, num_cases: int) -> np.ndarray:
    found: dict[str, list[float]] = {}
    for r in records:
        if (r.start, r.setting.num_cases) == (start, num_cases) and not math.isnan(r.dice):
            found.setdefault(r.case, []).append(r.dice)
    return np.array([np.mean(found[case]) for case in sorted(found)])


def test_table_says_what_the_records_say(written: tuple[str, Path, list[Record]]) -> None:
    text, folder, records = written
    assert (folder / "lowshot.md").read_text() == text
    assert SETTINGS["notes"][0] in text
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    dice = rows[1 : rows.index(rows[0], 1)]
    assert [row[:2] for row in dice] == [
        [size, start]
        for size in "26"
        for start in ("scratch", "student", "central ball", "teacher map")
    ]
    scratch, student = means(records, "scratch", 2), means(records, "student", 2)
    assert student.size == 11
    line = dice[1]
    assert line[2].startswith(f"**{student.mean():.3f} [".replace("0.", ".", 1))
    difference = f"{(student - scratch).mean():+.3f} [".replace("0.", ".", 1)
    assert line[3].startswith(difference)
    assert line[4] == f"{student.mean() / scratch.mean() - 1:+.1%}"
    assert line[5] == f"{(student > scratch).sum()} / {(student < scratch).sum()}"
    p = wilcoxon(student, scratch).pvalue
    assert line[6] == ("<.001" if p < 0.001 else f"{p:.3f}".replace("0.", ".", 1))
    assert int(line[9]) < int(dice[0][9]) <= 20
    assert dice[2][2] == ".250 [.250, .250]" and dice[2][3:] == [""] * 7
    assert dice[3][2] == ".500 [.500, .500]" and dice[3][3:] == [""] * 7
    assert "trained on 2: 11 cases; 1 left out, empty in reference and prediction" in text
    assert "- student, 2 cases, fold 9, seed 0: out of memory" in text


@pytest.mark.parametrize("scratch", [False, True])
def test_without_an_end_of_scratch_there_are_no_epochs_to_it(
    make_runs: Runs, made_up: Made, tmp_path: Path, scratch: bool
) -> None:
    runs = [r for r in make_runs(Design((2,), 3, 2, 20, 5)) if scratch or r.start == "student"]
    records = made_up(runs)
    ball = {"central ball": {r.setting: Floor(12.0, {r.cases["val"][0]: 0.2}) for r in runs}}
    # Early patches without foreground have no Dice; here, scratch never has one.
    curves = {
        run.name: np.full(20, np.nan) if run.start == "scratch" else np.linspace(0, 0.6, 20)
        for run in runs
    }
    summary = summarise(runs, records, ball, curves)
    text = write_report(tmp_path, summary, SETTINGS, runs, records, ball, {})
    (line, _) = (line for line in text.splitlines() if line.startswith("| 2 | student"))
    assert line.rstrip(" |").split("|")[-1].strip() != "never"


def test_probes_are_compared_with_the_probe_of_random_weights(
    make_runs: Runs, made_up: Made, tmp_path: Path
) -> None:
    """Unless stock training from random weights is there; a probe has no epochs."""
    probes = ("scratch-probe", "student-probe")
    for starts, control in (((*probes, "student"), probes[0]), ((*probes, "scratch"), "scratch")):
        runs = make_runs(Design((2,), 3, 2, 20, 5), starts)
        better = {"student-probe": 1.1}
        made = made_up(runs)
        records = [replace(r, dice=r.dice * better.get(r.start, 1)) for r in made]
        curves = {run.name: np.zeros(0) for run in runs}
        summary = summarise(runs, records, {}, curves)
        compared = {row.start: row.against_scratch for row in summary.rows["dice"]}
        own, other = means(records, "student-probe", 2), means(records, control, 2)
        found = compared.pop("student-probe")
        assert found is not None and found.difference.value == pytest.approx((own - other).mean())
        assert found.p == pytest.approx(wilcoxon(own, other).pvalue)
        assert {s for s, one in compared.items() if one is not None} == {*starts[:1]} - {control}
        text = write_report(tmp_path, summary, SETTINGS, runs, records, {}, {})
        assert "; heads on frozen networks, which take no epochs; source" in text


def test_files_hold_every_figure(written: tuple[str, Path, list[Record]]) -> None:
    _, folder, records = written
    stored = json.loads((folder / "lowshot.json").read_text(), parse_constant=pytest.fail)
    student = stored["rows"]["dice"][1]
    assert student["mean"]["value"] == pytest.approx(means(records, "student", 2).mean())
    assert len(student["seeds"]) == 2 and student["against_scratch"]["effect"] > 0.5
    assert len(stored["trainings"]) == 24 and len(stored["floors"]) == 2 * 12
    assert len(stored["learning_curves"][0]["values"]) == 20
    assert stored["left_out"]["dice"][0]["undefined_cases"] == 1
    with (folder / "lowshot.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == len(records) == 24 * 4
    for line, record in zip(lines, records, strict=True):
        assert (line["start"], line["case"]) == (record.start, record.case)
        assert int(line["fold"]) == record.setting.fold
        assert line["central_ball_dice"] == "0.25"
        assert line["teacher_map_dice"] == ("" if record.case == "case_03" else "0.5")
        assert (
            (line["dice"] == "") if math.isnan(record.dice) else float(line["dice"]) == record.dice
        )
    assert (folder / "lowshot.png").read_bytes()[:4] == b"\x89PNG"


def test_picture_does_not_depend_on_what_others_set(make_runs: Runs, made_up: Made) -> None:
    runs = make_runs(Design((2,), 3, 1, 4, 5))
    floors = {"ball": {r.setting: Floor(9.0, dict.fromkeys(r.cases["val"], 0.2)) for r in runs}}
    curves = {run.name: np.linspace(0, 0.5, 4) for run in runs}
    summary = summarise(runs, made_up(runs), floors, curves)
    plain = draw(summary, "2 mm")
    with rc_context({"font.size": 40.0, "axes.facecolor": "red", "ytick.labelsize": 30.0}):
        assert draw(summary, "2 mm") == plain


def test_long_names_stay_in_the_picture(
    make_runs: Runs, made_up: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_runs(Design((2,), 3, 1, 4, 5), ("scratch", "DistillationTrainer-Plan-0123abcd"))
    floors = {
        name: {r.setting: Floor(9.0, dict.fromkeys(r.cases["val"], 0.2)) for r in runs}
        for name in ("central ball", "teacher map")
    }
    curves = {run.name: np.linspace(0, 0.5, 4) for run in runs}
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **options: Any) -> None:
        save(figure, *args, **options)
        drawn.append(figure)

    monkeypatch.setattr(Figure, "savefig", keep)
    draw(summarise(runs, made_up(runs), floors, curves), "2 mm")
    (legend,) = drawn[0].subfigs[0].legends
    assert len(legend.get_texts()) == 4
    outline, panel = legend.get_window_extent(), drawn[0].subfigs[0].bbox
    assert panel.x0 <= outline.x0 and outline.x1 <= panel.x1


FILES = ("lowshot.md", "lowshot.csv", "lowshot.json", "lowshot.png")


@pytest.fixture
def write(make_runs: Runs, made_up: Made, tmp_path: Path) -> Callable[[], Path]:
    """Writes a small report into a folder of the user."""

    def written() -> Path:
        runs = make_runs(Design((2,), 3, 1, 4, 5))
        curves = {run.name: np.linspace(0, 0.5, 4) for run in runs}
        summary = summarise(runs, made_up(runs), {}, curves)
        write_report(tmp_path / "mine", summary, SETTINGS, runs, made_up(runs), {}, {})
        return tmp_path / "mine"

    return written


def test_a_report_replaces_its_own_files_only(write: Callable[[], Path]) -> None:
    folder = write()
    refuse_foreign_report(folder)
    assert write() == folder
    (folder / "lowshot.md").write_text("with notes of mine")
    with pytest.raises(ScreenerError, match="lowshot.md is not ours, or was changed.*--report"):
        refuse_foreign_report(folder)
    with pytest.raises(ScreenerError, match="not ours"):
        write()
    assert (folder / "lowshot.md").read_text() == "with notes of mine"


def test_files_of_somebody_else_are_no_report(tmp_path: Path, write: Callable[[], Path]) -> None:
    theirs = tmp_path / "mine" / "lowshot.json"
    theirs.parent.mkdir()
    theirs.write_text('{"settings": "of my own"}')
    with pytest.raises(ScreenerError, match="--report FOLDER"):
        refuse_foreign_report(theirs.parent)
    with pytest.raises(ScreenerError, match="not ours"):
        write()
    assert theirs.read_text() == '{"settings": "of my own"}'


def test_a_report_of_an_earlier_version_is_taken_over(
    write: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write()
    shutil.rmtree(folder / RECORDS)
    monkeypatch.setattr("screener_nnu.ownership._owned", {})  # a new process
    (folder / "figure.png").write_text("mine")
    before = {name: (folder / name).stat().st_mtime_ns for name in FILES}
    refuse_foreign_report(folder)
    assert not (folder / RECORDS).exists()
    write()
    assert all((folder / name).stat().st_mtime_ns > before[name] for name in FILES)
    assert (folder / "figure.png").read_text() == "mine"
