"""Any detectors of one plan in one table, compared in pairs on the same scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from screener_nnu.ablation.ablate import open_comparison
from screener_nnu.ablation.anomaly_store import AnomalyStore
from screener_nnu.ablation.budget import Assigned, Budget, assign_budget
from screener_nnu.ablation.compare_report import AUROC, Compared, Table, write_comparison
from screener_nnu.ablation.costs import Costs, costs_of, made_of
from screener_nnu.ablation.figures import (
    FPR30,
    Draws,
    auroc_draws,
    averaged,
    further_draws,
    less,
    row_of,
)
from screener_nnu.ablation.judged import Judged
from screener_nnu.ablation.run import refuse_other_base, refuse_seen_scans
from screener_nnu.ablation.scoring import judge_detector
from screener_nnu.ablation.slices_figure import SlicesFigure
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import dataset_name, plan_file
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import read_plan
from screener_nnu.synthetic.cases import PAINTED
from screener_nnu.trainers.detector import planned_stages, stages_of
from screener_nnu.trainers.run import train_stage


class Request(NamedTuple):
    """What is to be compared.

    Attributes:
        dataset: number or name.
        plans: plan that all detectors belong to.
        names: of `DETECTORS`; the others are compared with the first.
        use: `test` or `validation`, the scans of the split that get anomalies.
        anomaly_seed: of the anomalies.
        families: of anomalies, of `synthetic.cases.FAMILIES`.
        budget: of training.
        seeds: runs of each detector, the plan's own seed first.
    """

    dataset: int | str
    plans: str
    names: Sequence[str]
    use: str = "test"
    anomaly_seed: int = 1
    families: tuple[str, ...] = (PAINTED,)
    budget: Budget = Budget()
    seeds: int = 1


def compare_detectors(request: Request, device: torch.device, folder: Path) -> str:
    """Trains what is missing, judges all detectors on synthetic anomalies and writes the report.

    Args:
        request: what is to be compared.
        device: to train and score on.
        folder: of the report and of what is kept for the next run.

    Returns:
        The tables.

    Raises:
        ScreenerError: no plan, no such detector, no run or no scans.
    """
    if request.seeds < 1:
        raise ScreenerError(f"--seeds {request.seeds}: one run of each detector is the least")
    dataset, names = dataset_name(request.dataset), list(dict.fromkeys(request.names))
    specs = {name: ModelRef(dataset, request.plans, name).spec for name in names}
    opened = {
        family: open_comparison(
            dataset, request.plans, request.use, request.anomaly_seed, folder, family
        )
        for family in request.families
    }
    assigned = assign_budget(dataset, request.plans, names, request.budget, device)
    runs = {one.model.detector: _seeded(one, request.seeds) for one in assigned}
    for number in range(request.seeds):
        for name in names:
            _train(runs[name][number], request.plans, device)
    slices = SlicesFigure([store for store, _ in opened.values()])
    judged: dict[tuple[str, str], list[Judged]] = {}
    costs: dict[str, Costs] = {}
    for name in names:
        for number, (model, _) in enumerate(runs[name]):
            loaded = model.load(device)
            for family, (store, _) in opened.items():
                one = judge_detector(model, loaded, store, device, folder / "counts")
                judged.setdefault((family, name), []).append(one)
            if number == 0:
                store = next(iter(opened.values()))[0]
                costs[name] = costs_of(model, loaded, store.cases, store.names, device)
                slices.add(model, loaded, device)
    tables = []
    for family, (store, baselines) in opened.items():
        counted = {name: judged[family, name] for name in names}
        counted |= {name: [counts] for name, counts in baselines.items()}
        rows = _compared(counted, names[0])
        left_out = [c for c in getattr(store.settings.split, request.use) if c not in store.names]
        tables.append(Table(family, rows, names, list(store.names), left_out))
    about = _about(request, dataset, runs, opened)
    return write_comparison(tables, costs, specs, folder, about, slices.draw())


def _seeded(one: Assigned, seeds: int) -> list[Assigned]:
    """Runs of a detector; those beyond the first have plans and seeds of their own."""
    model, more = one
    dataset, base = str(model.dataset), read_plan(plan_file(model.dataset, model.plans))
    runs = [one]
    for seed in range(1, seeds):
        name, words = f"{model.plans}_seed{seed}", [f"seed={base.settings.seed + seed}"]
        derive_plan(dataset, name, words, model.plans)
        run = Assigned(ModelRef(dataset, name, model.detector), more)
        expected = base.with_settings(base.settings.override(words))
        for stage, plans in planned_stages(run.model, more).stages:
            if plans == name:
                refuse_other_base(dataset, stage, name, model.plans, expected)
        runs.append(run)
    return runs


def _train(one: Assigned, base_name: str, device: torch.device) -> None:
    """Trains what a detector lacks, on no scan that the base plan holds out."""
    model, more = one
    dataset = str(model.dataset)
    held_out = read_plan(plan_file(dataset, base_name)).settings.split
    for stage, plans in stages_of(model, more=more):
        refuse_seen_scans(dataset, plans, held_out)
        train_stage(dataset, stage, plans, device)


def _compared(counted: dict[str, list[Judged]], first: str) -> dict[str, Compared]:
    """Figures by method, and what their means are less those of the first."""
    drawn = {method: [_all_draws(run) for run in runs] for method, runs in counted.items()}
    scans = len(counted[first][0].cases)

    def group(method: str, name: str) -> list[Draws]:
        return [run[name] for run in drawn[method]]

    names = list(drawn[first][0])
    return {
        method: Compared(
            row_of(method, runs, group(method, AUROC), group(method, FPR30)),
            {name: averaged(group(method, name), scans) for name in names},
            {
                name: less(group(method, name), group(first, name), scans)
                for name in drawn[first][0]
            },
        )
        for method, runs in counted.items()
    }


def _all_draws(run: Judged) -> dict[str, Draws]:
    return {AUROC: auroc_draws(run), **further_draws(run)}


def _about(
    request: Request,
    dataset: str,
    runs: dict[str, list[Assigned]],
    opened: dict[str, tuple[AnomalyStore, dict[str, Judged]]],
) -> dict[str, object]:
    """What the report says of its making."""
    elsewhere = {
        f"{stage} of {plans}"
        for of_detector in runs.values()
        for model, more in of_detector
        for stage, plans in _from_elsewhere(model, more)
    }
    return {
        "dataset": dataset,
        "plans": request.plans,
        "use": request.use,
        "anomaly_seed": request.anomaly_seed,
        "scans": list(next(iter(opened.values()))[0].names),
        "budget": str(request.budget),
        "seeds": request.seeds,
        "elsewhere": sorted(elsewhere) if request.budget.name else [],
    }


def _from_elsewhere(model: ModelRef, more: Sequence[str]) -> list[tuple[str, str]]:
    """Trained stages that are no part of the comparison, so that no budget holds them."""
    return [one for one in made_of(model) if one not in planned_stages(model, more).stages]
