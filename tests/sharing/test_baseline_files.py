"""Model files of the methods of other groups, and figures of every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.baselines import METHODS
from screener_nnu.baselines.base import build_method
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import STOCK_TRAINER
from screener_nnu.plans import Plan
from screener_nnu.sharing.description import training_figures
from screener_nnu.sharing.manifest import StageFile
from screener_nnu.sharing.scrub import checkpoint_without_cases, plan_without_cases
from screener_nnu.sharing.weights_check import read_stage
from tests.baselines.made_plans import VOLUME, method_plan

FILE = StageFile("ScreenerPlans", "baseline")


def saved(plan: Plan, weights: dict[str, torch.Tensor], folder: Path) -> Path:
    checkpoint = {
        "plan": plan,
        "network_weights": weights,
        "trainer_name": STOCK_TRAINER,
        "init_args": {"dataset_json": {}},
        "score_statistics": {"mean": 1.0, "std": 2.0, "lowest": -3.0, "highest": 9.0},
    }
    torch.save(checkpoint_without_cases(checkpoint), folder / "baseline.pth")
    return folder / "baseline.pth"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_passes_the_check_of_a_file(name: str, tmp_path: Path) -> None:
    plan = method_plan(VOLUME, name)
    weights = build_method(plan).state_dict()
    found = read_stage(saved(plan, weights, tmp_path), FILE)["network_weights"]
    assert found.keys() == weights.keys()
    build_method(plan, empty=True).load_state_dict(found)
    missing = dict(list(weights.items())[1:])
    with pytest.raises(ScreenerError):
        read_stage(saved(plan, missing, tmp_path), FILE)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("cflow", "hidden=1000000"),
        ("cflow", "blocks=1000000"),
        ("cflow", "code=100000000"),
        ("msflow", "code=100000000"),
        ("msflow", "blocks=[1,1,1000000]"),
        ("msflow", 'architecture="resnet50"'),
    ],
)
def test_no_more_is_built_than_a_file_holds(name: str, setting: str, tmp_path: Path) -> None:
    plan = method_plan(VOLUME, name)
    weights = build_method(plan).state_dict()
    absurd = plan.with_settings(plan.settings.override([f"baseline.options.{setting}"]))
    with pytest.raises(ScreenerError, match=f"its {name} is smaller than its plan says"):
        read_stage(saved(absurd, weights, tmp_path), FILE)


def test_a_file_of_weights_keeps_its_name_alone() -> None:
    own = 'baseline.options.weights="/home/someone/nets/resnet18.pth"'
    values = plan_without_cases(method_plan(VOLUME, "msflow", [own]))
    assert "someone" not in str(values)
    assert values["screener"]["baseline"]["options"]["weights"] == "resnet18.pth"


@pytest.mark.parametrize(
    ("stage", "figure"), [("position", 0.4), ("start", 0.9), ("baseline", 0.9), ("igd", 0.4)]
)
def test_figures_of_a_stage_are_those_of_its_weights(stage: str, figure: float) -> None:
    values: dict[str, Any] = {"figures": [0.9, 0.4], "train_losses": [2.0, 1.0]}
    checkpoint = {
        "plan": method_plan(VOLUME, "autoencoder"),
        "logging": {"values": values, "reference": 0.1},
        "best_figure": 0.9,
        "global_step": 8,
    }
    found = training_figures(stage, checkpoint)
    assert (found["trained"], found["best"], found["untrained"]) == (figure, 0.9, 0.1)
