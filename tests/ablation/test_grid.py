"""Which stages a cell needs, and which of them cells share."""

from __future__ import annotations

from typing import Any

import pytest

from screener_nnu.ablation.grid import Cell, StagePlan, grid_cells, stages_of_cell
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import ScreenerSettings


@pytest.fixture
def base(made_world: Any) -> ScreenerSettings:
    """InfoNCE descriptor, masking-invariant condition."""
    return made_world.plan().settings


def test_grid_is_the_product_and_single_cells_come_once() -> None:
    cells = grid_cells(
        ["infonce"], ["none", "ape"], ["flow"], 2, ["vicreg/none/flow", "infonce/ape/flow/1"]
    )
    assert cells == [
        Cell("infonce", "none", "flow", 0),
        Cell("infonce", "none", "flow", 1),
        Cell("infonce", "ape", "flow", 0),
        Cell("infonce", "ape", "flow", 1),
        Cell("vicreg", "none", "flow", 0),
    ]


def test_the_plans_own_combination_trains_the_plans_own_networks(base: ScreenerSettings) -> None:
    stages = stages_of_cell(Cell("infonce", "masking_invariant", "flow"), "P", base)
    assert [(s.stage, s.plans_name, s.overrides) for s in stages[:2]] == [
        ("descriptor", "P", ()),
        ("condition", "P", ()),
    ]
    assert stages[2] == StagePlan(
        "density",
        "P_infonce_masking_invariant_flow",
        (
            "condition.kind=masking_invariant",
            "density.kind=flow",
            "density.descriptor_plans=P",
            "density.condition_plans=P",
        ),
    )


def test_networks_are_shared_by_loss_condition_and_seed(base: ScreenerSettings) -> None:
    cells = grid_cells(
        ["infonce", "vicreg"],
        ["none", "sincos", "ape", "masking_invariant"],
        ["gaussian", "flow"],
        2,
    )
    needed = {stage for cell in cells for stage in stages_of_cell(cell, "P", base)}
    by_stage: dict[str, set[str]] = {}
    for stage in needed:
        by_stage.setdefault(stage.stage, set()).add(stage.plans_name)
    # Two losses, two learned conditions, two seeds; a density each for the 32 cells.
    assert by_stage["descriptor"] == {"P", "P_vicreg", "P_seed1", "P_vicreg_seed1"}
    assert by_stage["condition"] == {"P", "P_seed1"}
    assert by_stage["position"] == {"P_ape", "P_ape_seed1"}
    assert len(by_stage["density"]) == len(cells) == 32
    # A plan of one name has one set of settings, but for stages that it does not share.
    names = [(stage.stage, stage.plans_name) for stage in needed]
    assert len(names) == len(set(names))


def test_plan_of_one_name_has_one_set_of_settings(base: ScreenerSettings) -> None:
    cells = grid_cells(["infonce", "vicreg"], ["ape", "masking_invariant"], ["flow"], 2)
    settings: dict[str, set[tuple[str, ...]]] = {}
    for cell in cells:
        for stage in stages_of_cell(cell, "P", base):
            settings.setdefault(stage.plans_name, set()).add(stage.overrides)
    assert all(len(found) == 1 for found in settings.values()), settings


def test_untrained_networks_need_no_stage(base: ScreenerSettings) -> None:
    (only,) = stages_of_cell(Cell("untrained", "masking_invariant", "gaussian", 1), "P", base)
    assert only.stage == "density"
    assert {
        "density.descriptor_plans=untrained",
        "density.condition_plans=untrained",
        f"seed={base.seed + 1}",
    } < set(only.overrides)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("infonce/none", "not of the form"),
        ("infonce/none/flow/first", "not of the form"),
        ("simclr/none/flow", "no loss 'simclr'; known: vicreg, infonce, untrained"),
        ("infonce/where/flow", "no condition 'where'"),
        ("infonce/none/histogram", "no density 'histogram'"),
    ],
)
def test_wrong_cells_are_named(text: str, message: str) -> None:
    with pytest.raises(ScreenerError, match=message):
        Cell.parse(text)


def test_networks_that_the_plans_density_borrows_are_shared(base: ScreenerSettings) -> None:
    borrowed = base.override(["density.descriptor_plans=Q", "density.condition_plans=R"])
    stages = stages_of_cell(Cell("infonce", "masking_invariant", "flow"), "P", borrowed)
    assert stages[:2] == [StagePlan("descriptor", "Q", None), StagePlan("condition", "R", None)]
    assert stages[2].overrides is not None
    assert {"density.descriptor_plans=Q", "density.condition_plans=R"} < set(stages[2].overrides)
    other = stages_of_cell(Cell("vicreg", "ape", "flow", 1), "P", borrowed)
    assert [stage.plans_name for stage in other[:2]] == ["P_vicreg_seed1", "P_ape_seed1"]
