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


def test_a_variant_that_has_seen_held_out_scans_is_refused(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    monkeypatch.setattr(run, "train_stage", lambda _, stage, plans, device: trained.append(plans))
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
