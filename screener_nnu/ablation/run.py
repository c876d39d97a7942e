"""Trains what a comparison needs; what is finished stays, what was killed goes on."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from screener_nnu.ablation.grid import Cell, StagePlan, stages_of_cell
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import plan_file
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import Plan, SplitSettings, read_plan
from screener_nnu.trainers.detector import Trained, stages_of
from screener_nnu.trainers.run import train_stage
from screener_nnu.trainers.stages import trainer_of

logger = logging.getLogger(__name__)


def train_cells(
    dataset: str, base_name: str, cells: Sequence[Cell], device: torch.device
) -> dict[Cell, str]:
    """Trains every stage that the cells need, each once.

    Returns:
        The plan whose density belongs to each cell.

    Raises:
        ScreenerError: no base plan, or a plan of a needed name with other settings than the base
            plan's, or one whose training has seen scans that are held out now.
    """
    base = read_plan(plan_file(dataset, base_name))
    plans: dict[Cell, str] = {}
    needed: dict[StagePlan, None] = {}
    for cell in cells:
        stages = stages_of_cell(cell, base_name, base.settings)
        needed |= dict.fromkeys(stages)
        plans[cell] = stages[-1].plans_name
    # Densities last: all networks are there when the first of them starts.
    ordered = sorted(needed, key=lambda stage: stage.stage == "density")
    for number, stage in enumerate(ordered, start=1):
        logger.info("%d/%d: %s of %s", number, len(ordered), stage.stage, stage.plans_name)
        overrides = None if stage.plans_name == base_name else stage.overrides
        if overrides is not None:
            derive_plan(dataset, stage.plans_name, list(overrides), base_name)
        refuse_seen_scans(dataset, stage.plans_name, base.settings.split)
        if overrides is not None:
            expected = base.with_settings(base.settings.override(list(overrides)))
            refuse_other_base(dataset, stage.stage, stage.plans_name, base_name, expected)
        train_stage(dataset, stage.stage, stage.plans_name, device)
    return plans


def train_planned(
    model: Trained, more: Sequence[str], base_name: str, device: torch.device
) -> None:
    """Trains what a detector or a start lacks, on no scan that a base plan holds out.

    Args:
        model: what to train.
        more: settings of its own plan, see `trainers.detector.stages_of`.
        base_name: plan of the comparison.
        device: to train on.
    """
    dataset = str(model.dataset)
    held_out = read_plan(plan_file(dataset, base_name)).settings.split
    for stage, plans in stages_of(model, more=more):
        refuse_seen_scans(dataset, plans, held_out)
        train_stage(dataset, stage, plans, device)


def refuse_other_base(
    dataset: str, stage: str, plans_name: str, base_name: str, expected: Plan
) -> None:
    """Refuses a variant that was derived before the base plan changed: rows would not compare.

    Args:
        dataset: name.
        stage: whose settings count.
        plans_name: the variant.
        base_name: plan that it was derived from.
        expected: what the base plan would give it now.

    Raises:
        ScreenerError: the variant has other settings.
    """
    path = plan_file(dataset, plans_name)
    relevant = trainer_of(stage).relevant_settings
    if relevant(read_plan(path)) != relevant(expected):
        raise ScreenerError(
            f"{plans_name} has other settings for its {stage} stage than {base_name} "
            f"would give it now. Delete {path} and its results, or keep both: write the base plan "
            "under another name (-p)"
        )


def refuse_seen_scans(dataset: str, plans_name: str, held_out: SplitSettings) -> None:
    """Refuses a plan, left from an earlier split, whose training has seen what is held out now.

    Raises:
        ScreenerError: it has.
    """
    split = read_plan(plan_file(dataset, plans_name)).settings.split
    seen = set(split.train) & {*held_out.validation, *held_out.test}
    seen |= set(split.validation) & set(held_out.test)
    if seen:
        raise ScreenerError(
            f"{plans_name} was made with another split: it trains on or chooses by scans that are "
            f"held out now (first: {min(seen)}). Delete {plan_file(dataset, plans_name)} and its "
            "results, or plan under another name (-p)"
        )
