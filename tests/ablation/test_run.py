"""Plans that are left from another split."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from screener_nnu.ablation import run
from screener_nnu.ablation.grid import Cell
from screener_nnu.errors import ScreenerError

CPU = torch.device("cpu")
CELL = Cell("vicreg", "none", "gaussian")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Plans whose stages would have been trained; none is."""
    plans: list[str] = []
    monkeypatch.setattr(run, "train_stage", lambda _, stage, name, device: plans.append(name))
    return plans


def test_a_variant_that_has_seen_held_out_scans_is_refused(world: Any, trained: list[str]) -> None:
    run.train_cells("901", "ScreenerPlans", [CELL], CPU)
    variant = trained[-1]
    assert variant != "ScreenerPlans"

    path = world.preprocessed / f"{variant}.json"
    plan = json.loads(path.read_text())
    held_out = plan["screener"]["split"]["validation"][0]
    plan["screener"]["split"]["train"].append(held_out)
    path.write_text(json.dumps(plan))
    trained.clear()
    with pytest.raises(ScreenerError, match=rf"{variant} was made with another split.*{held_out}"):
        run.train_cells("901", "ScreenerPlans", [CELL], CPU)
    assert variant not in trained


def test_a_variant_of_an_earlier_base_plan_is_refused(world: Any, trained: list[str]) -> None:
    """Other steps make rows that cannot be compared; what a stage does not read may differ."""
    run.train_cells("901", "ScreenerPlans", [CELL], CPU)

    def change(group: str, key: str, value: Any) -> None:
        path = world.preprocessed / "ScreenerPlans.json"
        plan = json.loads(path.read_text())
        plan["screener"][group][key] = value
        path.write_text(json.dumps(plan))

    change("distillation", "clip_sigma", 4.5)
    run.train_cells("901", "ScreenerPlans", [CELL], CPU)
    change("density", "hidden", 9)
    with pytest.raises(ScreenerError, match="vicreg_none_gaussian has other settings for its den"):
        run.train_cells("901", "ScreenerPlans", [CELL], CPU)
