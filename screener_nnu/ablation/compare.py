"""Any detectors of one plan in one table, compared in pairs on the same scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from screener_nnu.ablation.ablate import open_comparison
from screener_nnu.ablation.anomaly_store import AnomalyStore
from screener_nnu.ablation.budget import Assigned, Budget, assign_budget
from screener_nnu.ablation.compare_report import write_comparison
from screener_nnu.ablation.compared import Compared, Table
from screener_nnu.ablation.costs import Costs, costs_of, made_of
from screener_nnu.ablation.failures import Failures
from screener_nnu.ablation.figures import Drawn, Draws, averaged, less, row_of
from screener_nnu.ablation.run import refuse_other_base, refuse_seen_scans
from screener_nnu.ablation.schedules import planned_schedule
from screener_nnu.ablation.scoring import judge_detector
from screener_nnu.ablation.slices_figure import SlicesFigure
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import begun_stages, dataset_name, plan_file
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import read_plan
from screener_nnu.stages import OPTIMISERS
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
        ScreenerError: no plan, no such detector, no run or no scans; or the first detector, with
            which the others are compared, cannot be trained or judged. Another one that cannot
            is named in the report.
    """
    if request.seeds < 1:
        raise ScreenerError(f"--seeds {request.seeds}: one run of each detector is the least")
    dataset, names = dataset_name(request.dataset), list(dict.fromkeys(request.names))
    specs = {name: ModelRef(dataset, request.plans, name).spec for name in names}
    failures, opened = Failures(names[0]), {}
    for family in request.families:
        store, baselines = open_comparison(
            dataset, request.plans, request.use, request.anomaly_seed, folder, family
        )
        opened[family] = store, {name: [Drawn.of(one)] for name, one in baselines.items()}
    runs = _trained(request, dataset, names, device, failures)
    stores = [store for store, _ in opened.values()]
    slices = SlicesFigure(stores)
    drawn: dict[str, dict[str, list[Drawn]]] = {}
    costs: dict[str, Costs] = {}
    for name, of_name in runs.items():
        with failures.guard(name):
            judged: dict[str, list[Drawn]] = {family: [] for family in opened}
            for number, one in enumerate(of_name):
                loaded = one.model.load(device)
                for store in stores:
                    counts = judge_detector(one.model, loaded, store, device, folder / "counts")
                    judged[store.family].append(Drawn.of(counts))
                if number == 0:
                    cost = costs_of(one.model, loaded, stores[0].cases, stores[0].names, device)
                    slices.add(one.model, loaded, device)
            # Kept where all of it succeeded.
            drawn[name], costs[name] = judged, cost
    tables = []
    for family, (store, of_baselines) in opened.items():
        rows = {name: of_families[family] for name, of_families in drawn.items()} | of_baselines
        left_out = [c for c in getattr(store.settings.split, request.use) if c not in store.names]
        compared = _compared(rows, names[0])
        tables.append(Table(family, compared, list(drawn), list(store.names), left_out))
    about = _about(request, dataset, {name: runs[name] for name in drawn}, stores[0])
    return write_comparison(tables, costs, specs, folder, about, slices.draw(), failures.reasons)


def _trained(
    request: Request, dataset: str, names: list[str], device: torch.device, failures: Failures
) -> dict[str, list[Assigned]]:
    """Runs of every detector that could be trained."""
    assigned = assign_budget(dataset, request.plans, names, request.budget, device, failures.guard)
    runs: dict[str, list[Assigned]] = {}
    for one in assigned:
        name = one.model.detector
        with failures.guard(name):
            runs[name] = _seeded(one, request.seeds, request.budget)
    for number in range(request.seeds):
        for name in failures.left(list(runs)):
            with failures.guard(name):
                _train(runs[name][number], request.plans, device)
    return {name: runs[name] for name in failures.left(list(runs))}


def _seeded(one: Assigned, seeds: int, budget: Budget) -> list[Assigned]:
    """Runs of a detector; those beyond the first have plans and seeds of their own."""
    model, dataset = one.model, str(one.model.dataset)
    base = read_plan(plan_file(dataset, model.plans))
    runs = [one]
    for seed in range(1, seeds):
        name, words = f"{model.plans}_seed{seed}", [f"seed={base.settings.seed + seed}"]
        # Under a budget the plan of the first run gains steps with every detector that joins.
        begun = begun_stages(dataset, name) if budget.name else OPTIMISERS
        joined = [word for s in OPTIMISERS if s not in begun for word in planned_schedule(base, s)]
        derive_plan(dataset, name, [*words, *joined], model.plans, restart=bool(budget.name))
        run = Assigned(ModelRef(dataset, name, model.detector), one.more, one.minutes)
        expected = base.with_settings(base.settings.override(words))
        for stage, plans in planned_stages(run.model, run.more).stages:
            if plans == name:
                refuse_other_base(dataset, stage, name, model.plans, expected)
        runs.append(run)
    return runs


def _train(one: Assigned, base_name: str, device: torch.device) -> None:
    """Trains what a detector lacks, on no scan that the base plan holds out."""
    model, more = one.model, one.more
    dataset = str(model.dataset)
    held_out = read_plan(plan_file(dataset, base_name)).settings.split
    for stage, plans in stages_of(model, more=more):
        refuse_seen_scans(dataset, plans, held_out)
        train_stage(dataset, stage, plans, device)


def _compared(runs: dict[str, list[Drawn]], first: str) -> dict[str, Compared]:
    """Figures by method, and what their means are less those of the first."""
    scans = len(runs[first][0].cases)

    def group(method: str, name: str) -> list[Draws]:
        return [run.draws[name] for run in runs[method]]

    names = list(runs[first][0].draws)
    return {
        method: Compared(
            row_of(method, of_method),
            {name: averaged(group(method, name), scans) for name in names},
            {name: less(group(method, name), group(first, name), scans) for name in names},
        )
        for method, of_method in runs.items()
    }


def _about(
    request: Request,
    dataset: str,
    runs: dict[str, list[Assigned]],
    store: AnomalyStore,
) -> dict[str, object]:
    """What the report says of its making."""
    elsewhere = {
        f"{stage} of {plans}"
        for of_detector in runs.values()
        for one in of_detector
        for stage, plans in _from_elsewhere(one.model, one.more)
    }
    return {
        "dataset": dataset,
        "plans": request.plans,
        "use": request.use,
        "anomaly_seed": request.anomaly_seed,
        "scans": list(store.names),
        "budget": str(request.budget),
        "budget_steps": request.budget.steps,
        "budget_minutes": request.budget.minutes,
        "minutes": {name: of_detector[0].minutes for name, of_detector in runs.items()},
        "seeds": request.seeds,
        "elsewhere": sorted(elsewhere) if request.budget.name else [],
    }


def _from_elsewhere(model: ModelRef, more: Sequence[str]) -> list[tuple[str, str]]:
    """Trained stages that are no part of the comparison, so that no budget holds them."""
    return [one for one in made_of(model) if one not in planned_stages(model, more).stages]
