from __future__ import annotations

import csv
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import SimpleITK
import torch

from screener_nnu.commands.lowshot import main
from screener_nnu.finetuning.training import FineTuningRun, make_trainer

_made = runpy.run_path(str(Path(__file__).parents[1] / "finetuning" / "conftest.py"))
world = _made["world"]
COMMAND = ["-d", "502", "--source", "901", "-device", "cpu"]
TINY = ["--num_cases", "2", "--folds", "2", "--epochs", "2", "--iterations", "2"]
REPORT = "lowshot_Screener901_2x2"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--num_cases", "5", "--folds", "3"], "trains on 4 cases"),
        (["--num_cases", "2", "--folds", "7"], "ask for 2 to 6"),
        (["--num_cases", "2", "--init", "teacher"], "is no start"),
        (["--num_cases", "2", "--nsd_tolerance", "-1"], "negative"),
        (["--num_cases", "2", "--nsd_tolerance", "nan"], "finite"),
        (["--num_cases", "2", "--report_only", "--restart"], "leave --restart out"),
        ([*TINY, "--report_only"], "no training of 4 is finished"),
        ([*TINY, "--report_only", "--init", "scratch", "scratch"], "no training of 2 is finished"),
    ],
)
def test_requests_that_cannot_be_met(
    world: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str
) -> None:
    with pytest.raises(SystemExit):
        main([*COMMAND, *arguments])
    assert reason in capsys.readouterr().err
    assert not list(world.root.glob("results/Dataset502_Lesions/*"))


def test_misfits_end_the_command_before_anything_is_written(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in ("case_1", "case_4"):
        (world.raw / "labelsTr" / f"{case}.nii.gz").write_bytes(b"")
    with pytest.raises(SystemExit):
        main([*COMMAND, *TINY])
    said = capsys.readouterr().err
    assert "\n  case_1: " in said and "\n  case_4: " in said and "the file is empty" in said
    assert [path.name for path in world.preprocessed.iterdir()] == ["screener_case_check.json"]


def test_draws_without_foreground_end_the_command(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in range(5):
        path = str(world.raw / "labelsTr" / f"case_{case}.nii.gz")
        SimpleITK.WriteImage(SimpleITK.ReadImage(path) * 0, path)
    with pytest.raises(SystemExit):
        main([*COMMAND, *TINY])
    assert "no training case of fold " in capsys.readouterr().err
    assert not list(world.preprocessed.glob("splits*"))


def test_files_of_somebody_else_where_the_report_should_go(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Refused at once, and not after all trainings."""
    theirs = world.root / "mine" / "lowshot.md"
    theirs.parent.mkdir()
    theirs.write_text("notes")
    with pytest.raises(SystemExit):
        main([*COMMAND, *TINY, "--report", str(theirs.parent)])
    assert f"{theirs} is not ours" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*COMMAND, *TINY, "--report", str(theirs)])
    assert f"{theirs} is no folder" in capsys.readouterr().err
    assert theirs.read_text() == "notes" and not world.preprocessed.exists()


@pytest.mark.slow
def test_two_starts_on_two_folds(
    world: Any,
    light_nnunet: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main([*COMMAND, "-np", "1", *TINY])
    said = capsys.readouterr().out
    assert "68 of 72" in said and "4 of 4 trainings are finished" in said
    folder = world.results / REPORT
    assert (folder / "lowshot.png").is_file() and (folder / "lowshot.md").read_text() in said
    stored = json.loads((folder / "lowshot.json").read_text())
    assert [len(curve["values"]) for curve in stored["learning_curves"]] == [2, 2]
    models = [Path(run["folder"]).parent.name.split("__")[1] for run in stored["trainings"]]
    assert sorted(set(models)) == [f"Screener901_{s}_2x2_seed0" for s in ("scratch", "student")]
    with (folder / "lowshot.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    _check_figures_are_those_of_nnunet(lines, stored["trainings"])
    _check_starts_see_the_same_batches(world, int(lines[0]["splits_final_fold"]))
    checkpoints = [Path(run["folder"]) / "checkpoint_final.pth" for run in stored["trainings"]]
    before = [path.stat().st_mtime_ns for path in checkpoints]
    # One lost validation: the report goes without its setting, the next run does it again.
    (checkpoints[1].parent / "validation" / "summary.json").unlink()
    main([*COMMAND, *TINY, "--report_only"])
    said = capsys.readouterr().out
    assert "1 pairs of fold and seed not finished by all starts" in said
    _check_floor_of_a_map(world, capsys, monkeypatch)
    main([*COMMAND, "-np", "1", *TINY])
    assert "4 of 4 trainings are finished" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in checkpoints] == before


def test_the_budget_is_that_of_the_command(world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*COMMAND, *TINY, "--init", "scratch", "student:tuned", "-o", "epochs=5"])
    assert "--epochs, not -o epochs=5" in capsys.readouterr().err


def _check_floor_of_a_map(
    world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels themselves as maps, but for one case whose map could not be made."""
    asked = []

    def maps(dataset: Any, *arguments: Any) -> tuple[dict[str, Path], dict[str, str]]:
        asked.append((dataset.name, *arguments))
        lost, *others = dataset.cases
        return {case: dataset.labels[case] for case in others}, {f"map of {lost}": "too thin"}

    monkeypatch.setattr("screener_nnu.lowshot.maps.predicted_maps", maps)
    main([*COMMAND, *TINY, "--report_only", "--map", "student"])
    source = ("Dataset901_Trunk", "ScreenerPlans", "student", "cpu", False)
    assert asked == [("Dataset502_Lesions", *source)]
    said = capsys.readouterr().out
    assert (
        "| 2 | student map | 1.000 [1.000, 1.000] |" in said and "map of case_0: too thin" in said
    )


def _check_starts_see_the_same_batches(world: Any, fold: int) -> None:
    batches = []
    for start, weights, seed in (("scratch", None, 3), ("student", world.student, 3)):
        name = f"Screener901_{start}_2x2_seed0"
        run = FineTuningRun("Dataset502_Lesions", name, fold, weights, 2, 2, seed)
        loader, _ = make_trainer(run, "cpu", resume=False).get_dataloaders()
        batches.append([next(loader)["data"] for _ in range(2)])
    assert all(map(torch.equal, *batches)) and not torch.equal(*batches[0])


def _check_figures_are_those_of_nnunet(lines: list[dict[str, str]], runs: list[dict]) -> None:
    assert len(lines) == 12  # every case once a start
    for line in lines:
        (run,) = (r for r in runs if (r["start"], str(r["fold"])) == (line["start"], line["fold"]))
        assert len(run["training_cases"]) == 2 and line["case"] not in run["training_cases"]
        summary = json.loads((Path(run["folder"]) / "validation" / "summary.json").read_text())
        (entry,) = (
            e for e in summary["metric_per_case"] if f"/{line['case']}." in e["prediction_file"]
        )
        assert float(line["dice"]) == pytest.approx(entry["metrics"]["1"]["Dice"])
        assert 0 <= float(line["nsd"]) <= 1
