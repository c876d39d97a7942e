"""Starts of a benchmark are trained within one budget, under one plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.ablation import budget as budget_room
from screener_nnu.ablation import run as run_room
from screener_nnu.ablation.budget import Budget
from screener_nnu.commands import compare as command
from screener_nnu.errors import ScreenerError
from screener_nnu.lowshot.pretraining import pretrain_starts
from screener_nnu.paths import plan_file, stage_folder
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import read_plan

NAME, CPU = "Dataset901_Tiny", torch.device("cpu")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Notes stages and plans in place of training."""
    made: list[tuple[str, str]] = []
    monkeypatch.setattr(
        run_room, "train_stage", lambda dataset, stage, plans, device: made.append((stage, plans))
    )
    return made


@pytest.mark.slow
def test_starts_are_trained_once_and_found_by_fine_tuning(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real trainings of two steps, and what the command hands to the benchmark."""
    handed: list[Any] = []
    monkeypatch.setattr(command, "benchmark", lambda args, notes: handed.append((args, notes)))
    words = ["901", "--starts", "scratch", "descriptor", "tissue:tuned", "-d", "502"]
    words += ["--steps", "2", "--num_cases", "3", "4", "--seeds", "2", "--epochs", "7"]
    words += ["--iterations", "9", "--folds", "3", "-device", "cpu", "-o", str(tmp_path)]
    command.main(words)
    files = {
        stage_folder(NAME, "descriptor", "ScreenerPlans_s2"),
        stage_folder(NAME, "start", "ScreenerPlans_s2_start_tissue"),
    }
    before = {path: (path / "checkpoint_final.pth").stat().st_mtime_ns for path in files}
    command.main(words)
    assert before == {p: (p / "checkpoint_final.pth").stat().st_mtime_ns for p in files}
    args, notes = handed[1]
    assert args.init == ["scratch", "descriptor", "tissue:tuned"] and args.p == "ScreenerPlans_s2"
    assert (args.d, args.source, args.num_cases, args.seeds) == ("502", NAME, [3, 4], 2)
    assert (args.epochs, args.iterations, args.folds) == (7, 9, 3)
    assert args.report == tmp_path
    assert notes == ["Pre-training of each start: 2 steps a stage."]
    settings = read_plan(plan_file(NAME, "ScreenerPlans_s2_start_tissue")).settings
    assert settings.start.optimiser.steps == 2 and settings.start.method == "tissue"


def test_minutes_are_split_within_one_plan(
    world: Any, trainings: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {
        **dict.fromkeys([("descriptor", ""), ("condition", ""), ("density", "")], 1.0),
        ("distillation", ""): 2.0,
        ("start", "start_denoising"): 0.5,
    }
    asked: list[list[str]] = []

    def measured(dataset: str, plans: str, detectors: list[str], *more: Any) -> Any:
        asked.append(list(detectors))
        return seconds

    monkeypatch.setattr(budget_room, "step_seconds", measured)
    starts = ["scratch", "shuffled", "denoising", "a.pth"]
    made = pretrain_starts(NAME, "ScreenerPlans", starts, Budget(minutes=1.0), CPU)
    assert asked == [["student", "start_denoising"]]
    name = "ScreenerPlans_m1_descriptor_to_distillation"
    assert made.plans == name and made.starts == starts and not made.failures
    chain = ["descriptor", "condition", "density", "distillation"]
    own = ("start", f"{name}_start_denoising")
    assert trainings == [*((stage, name) for stage in chain), own]
    # Four stages of equally many steps share a minute; the other start has it all.
    settings = read_plan(plan_file(NAME, name)).settings
    assert settings.distillation.optimiser.steps == settings.density.optimiser.steps == 12
    of_start = read_plan(plan_file(NAME, own[1])).settings.start
    assert of_start.optimiser.steps == 120 and of_start.method == "denoising"
    assert made.notes[1] == "Minutes of steps given: shuffled 1.00, denoising 1.00."


def test_a_start_that_fails_does_not_cost_the_others(
    world: Any, trainings: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(dataset: str, stage: str, plans: str, device: Any) -> None:
        if plans.endswith("tissue"):
            raise ScreenerError("the loss is NaN\nat step 3")
        trainings.append((stage, plans))

    monkeypatch.setattr(run_room, "train_stage", broken)
    made = pretrain_starts(NAME, "ScreenerPlans", ["tissue", "denoising"], Budget(steps=2), CPU)
    assert made.starts == ["denoising"] and made.failures == {"start_tissue": "the loss is NaN"}
    assert "Not pre-trained: start_tissue: the loss is NaN" in made.notes
    assert trainings == [("start", "ScreenerPlans_s2_start_denoising")]


def test_what_needs_no_training_or_is_no_start_of_a_unet(
    world: Any, trainings: list[tuple[str, str]]
) -> None:
    made = pretrain_starts(NAME, "ScreenerPlans", ["scratch", "mine.pth"], Budget(steps=2), CPU)
    assert made.plans == "ScreenerPlans" and not trainings
    derive_plan(NAME, "Elsewhere", ["density.descriptor_plans=ScreenerPlans"], "ScreenerPlans")
    assert (
        pretrain_starts(NAME, "Elsewhere", ["descriptor"], Budget(), CPU).starts and not trainings
    )
    derive_plan(NAME, "Photos", ["pretext.backbone=resnet18"], "ScreenerPlans")
    with pytest.raises(ScreenerError, match="trains resnet18, no network of nnU-Net"):
        pretrain_starts(NAME, "Photos", ["pretext"], Budget(), CPU)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "nothing to compare"),
        (["--starts", "scratch"], "compared on a labelled data set"),
        (["--detectors", "padim", "-d", "502"], "compared on a labelled data set"),
    ],
)
def test_requests_that_say_too_little(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(["901", *words])
    assert reason in capsys.readouterr().err
