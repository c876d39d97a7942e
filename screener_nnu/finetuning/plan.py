"""The plan of a labelled dataset, made from that of a pre-trained one."""

from __future__ import annotations

import os
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.description import read_json_object
from screener_nnu.finetuning.settings import PROVENANCE, TrainerSettings
from screener_nnu.paths import dataset_name, plan_file, results_folder
from screener_nnu.plans import (
    CONFIGURATIONS,
    DEFAULT_PLANS_NAME,
    PICTURES,
    VOLUMES,
    StockPlan,
    write_json,
)

# What plans of ours normalise by.
_SCHEMES = {
    VOLUMES: (["CTNormalization"], ["ZScoreNormalization"]),
    PICTURES: (["CTNormalization"], ["CTNormalization"] * 3),
}


def target_stem(source: str, plans_name: str) -> str:
    """Name of the source in plan names: `Screener901`, with what sets its plan apart.

    Example:
        >>> target_stem("Dataset901_Trunk", "ScreenerPlans")
        'Screener901'
        >>> target_stem("Dataset901_Trunk", "ScreenerPlans_infonce")
        'Screener901_infonce'
    """
    own = plans_name.removeprefix(DEFAULT_PLANS_NAME)
    return f"Screener{source[7:10]}{own if own.startswith('_') or not own else '_' + own}"


def target_plans_name(source: str, plans_name: str, start: str) -> str:
    """Name of the plan in the labelled dataset, by its start: `Screener901_student`."""
    return f"{target_stem(source, plans_name)}_{start}"


def read_source_plan(source: str, plans_name: str) -> StockPlan:
    """The plan of the pre-trained dataset.

    Raises:
        ScreenerError: no such plan, or not for one channel of CT or MR, or for pictures.
    """
    path = plan_file(source, plans_name)
    if not path.is_file():
        raise ScreenerError(
            f"no plan {path}: plan and pre-train the source dataset first, or name its plan with -p"
        )
    plan = StockPlan(read_json_object(path, "restore it, or plan the source dataset again"))
    try:
        schemes = plan.configuration["normalization_schemes"]
    except (KeyError, TypeError) as error:
        raise ScreenerError(
            f"{path} is no plan with the configuration {' or '.join(CONFIGURATIONS)}: name another "
            "one with -p"
        ) from error
    if schemes not in _SCHEMES[plan.configuration_name]:
        raise ScreenerError(
            f"{path} is not a plan for one channel of CT or MR, or for pictures: it normalises by "
            f"{schemes}"
        )
    return plan


def target_plan(
    plan: StockPlan,
    *,
    source: str,
    target: str,
    start: str,
    reader: str,
    tuned: TrainerSettings | None = None,
) -> StockPlan:
    """The source's plan as a plan of the labelled dataset.

    The settings of self-supervision are left behind: stock nnU-Net copies the plan into every
    model, and they list the names of the pre-training cases.

    Args:
        plan: plan of the source.
        source: full name of the pre-trained dataset.
        target: full name of the labelled dataset.
        start: name of the start, which sets this plan apart from those of other starts.
        reader: nnU-Net's reader of the labelled dataset's file format.
        tuned: settings of a trainer of ours, where it trains.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    values = plan.to_dict()
    name = plan.configuration_name
    # Resolves `inherits_from`; other configurations stay behind with the source's data.
    block = dict(PlansManager(values).get_configuration(name).configuration)
    stem = target_stem(source, plan.name)
    block["data_identifier"] = f"{stem}_{name}"
    if tuned:
        block["architecture"] = tuned.architecture(block["architecture"])
    block.pop("next_stage", None)
    values.pop("screener", None)
    provenance = {"source": source, "source_plans": plan.name, "start": start}
    made = {
        **values,
        "dataset_name": target,
        "plans_name": target_plans_name(source, plan.name, start),
        "image_reader_writer": reader,
        "configurations": {name: block},
        PROVENANCE: {**provenance, "settings": tuned.to_plan()} if tuned else provenance,
    }
    return StockPlan(made)


def check_target_plan(plan: StockPlan, restart: bool = False) -> None:
    """Whether the plan may be written into the labelled dataset; writes nothing.

    Raises:
        ScreenerError: a file of that name is not ours, or models were trained with another plan of
            this name.
    """
    path = plan_file(plan.dataset, plan.name)
    if not os.path.lexists(path):
        return
    stored = read_json_object(path, "move it away, for the plan of the source takes its place")
    if PROVENANCE not in stored:
        raise ScreenerError(
            f"{path} was not written by screener_finetune, whose plan would take its place: move "
            "it away, or give it another name"
        )
    if stored == plan.to_dict() or restart:
        return
    checkpoints = f"*__{plan.name}__{plan.configuration_name}/fold_*/checkpoint_*.pth"
    models = results_folder(plan.dataset).glob(checkpoints)
    trained = sorted({str(model.parent) for model in models})
    if trained:
        raise ScreenerError(
            f"the plan of {dataset_name(plan.values[PROVENANCE]['source'])} has changed since "
            f"{trained[0]} was trained; train anew with --restart, or restore the plan"
        )


def write_target_plan(plan: StockPlan, restart: bool = False) -> Path:
    """Writes the plan into the labelled dataset.

    Raises:
        ScreenerError: see `check_target_plan`.
    """
    check_target_plan(plan, restart)
    path = plan_file(plan.dataset, plan.name)
    write_json(path, plan.to_dict())
    return path
