"""Any detectors of one plan in one table, compared in pairs on the same scans."""

from __future__ import annotations

import time
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
from screener_nnu.ablation.run import refuse_other_base, train_planned
from screener_nnu.ablation.schedules import planned_schedule
from screener_nnu.ablation.scoring import counts_file, judge_detector
from screener_nnu.ablation.slices_figure import SlicesFigure
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import begun_stages, dataset_name, plan_file
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import read_plan
from screener_nnu.stages import OPTIMISERS
from screener_nnu.synthetic.cases import PAINTED
from screener_nnu.trainers.detector import planned_stages

# Seconds between reports of those detectors that are judged so far.
_EARLY_REPORT = 60.0


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
        num_scans: take so many scans at most, spread evenly over their names.
    """

    dataset: int | str
    plans: str
    names: Sequence[str]
    use: str = "test"
    anomaly_seed: int = 1
    families: tuple[str, ...] = (PAINTED,)
    budget: Budget = Budget()
    seeds: int = 1
    num_scans: int | None = None


def compare_detectors(request: Request, device: torch.device, folder: Path) -> str:
    """Trains what is missing, judges all detectors on synthetic anomalies and writes the report.

    Each is judged as soon as it is trained, and the report grows with it.

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
            dataset,
            request.plans,
            request.use,
            request.anomaly_seed,
            folder,
            family,
            request.num_scans,
        )
        opened[family] = store, {name: [Drawn.of(one)] for name, one in baselines.items()}
    judged = _Judged([store for store, _ in opened.values()], device, folder)
    runs = _assigned(request, dataset, names, device, failures)

    def report(seeds: int) -> str:
        tables = []
        for family, (store, of_baselines) in opened.items():
            rows = {name: of_families[family] for name, of_families in judged.drawn.items()}
            compared = _compared(rows | of_baselines, names[0])
            shares = rows[names[0]][0].shares
            scans = list(store.names)
            tables.append(Table(family, compared, list(rows), scans, store.left_out, shares))
        of_rows = {name: runs[name] for name in judged.drawn}
        about = _about(request, dataset, of_rows, store, seeds)
        slices = judged.slices.draw(list(judged.drawn))
        return write_comparison(
            tables, judged.costs, specs, folder, about, slices, failures.reasons
        )

    reported = time.monotonic()
    for number in range(request.seeds):
        for name in failures.left(list(runs)):
            with failures.guard(name):
                one = runs[name][number]
                train_planned(one.model, one.more, request.plans, device)
                judged.add(ModelRef(dataset, one.model.plans, name))
            if name in failures.reasons:
                judged.drop(name)
            # While all have one run: rows of unequal numbers of runs would not compare.
            if number == 0 and time.monotonic() - reported > _EARLY_REPORT:
                report(seeds=1)
                reported = time.monotonic()
    return report(request.seeds)


class _Judged:
    """What detectors were found worth; each is judged as soon as it is trained.

    Args:
        stores: anomalies of each family.
        device: to score on.
        folder: of the report.

    Attributes:
        drawn: by detector and family, one a run.
        costs: by detector, of its first run.
        slices: picture of the maps of first runs.
    """

    def __init__(self, stores: Sequence[AnomalyStore], device: torch.device, folder: Path) -> None:
        """Nothing is judged yet."""
        self.stores, self.device, self.folder = stores, device, folder
        self.drawn: dict[str, dict[str, list[Drawn]]] = {}
        self.costs: dict[str, Costs] = {}
        self.slices = SlicesFigure(stores)

    def add(self, model: ModelRef) -> None:
        """Judges one more run of a detector; kept where all of it succeeds."""
        loaded, counts = model.load(self.device), self.folder / "counts"
        judged = {
            store.family: judge_detector(model, loaded, store, self.device, counts)
            for store in self.stores
        }
        name, first = model.detector, self.stores[0]
        if name not in self.drawn:
            kept = counts / f"{counts_file(counts, model, first).stem}_seconds.json"
            self.costs[name] = costs_of(model, loaded, first.cases, first.names, self.device, kept)
            self.slices.add(name, judged)
            self.drawn[name] = {family: [] for family in judged}
        for family, one in judged.items():
            self.drawn[name][family].append(Drawn.of(one))

    def drop(self, name: str) -> None:
        """Forgets a detector one of whose runs failed."""
        self.drawn.pop(name, None)
        self.costs.pop(name, None)


def _assigned(
    request: Request, dataset: str, names: list[str], device: torch.device, failures: Failures
) -> dict[str, list[Assigned]]:
    """Runs of every detector, with their plans."""
    assigned = assign_budget(dataset, request.plans, names, request.budget, device, failures.guard)
    runs: dict[str, list[Assigned]] = {}
    for one in assigned:
        name = one.model.detector
        with failures.guard(name):
            runs[name] = _seeded(one, request.seeds, request.budget)
    return runs


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
        run = one._replace(model=ModelRef(dataset, name, model.detector))
        expected = base.with_settings(base.settings.override(words))
        for stage, plans in planned_stages(run.model, run.more).stages:
            if plans == name:
                refuse_other_base(dataset, stage, name, model.plans, expected)
        runs.append(run)
    return runs


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
            averaged([run.changes for run in of_method], scans),
        )
        for method, of_method in runs.items()
    }


def _about(
    request: Request,
    dataset: str,
    runs: dict[str, list[Assigned]],
    store: AnomalyStore,
    seeds: int,
) -> dict[str, object]:
    """What the report says of its making."""
    elsewhere = {
        f"{stage} of {plans}"
        for of_detector in runs.values()
        for one in of_detector
        for stage, plans in _from_elsewhere(dataset, one)
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
        "plan_of": {name: of_detector[0].model.plans for name, of_detector in runs.items()},
        "seeds": seeds,
        "elsewhere": sorted(elsewhere) if request.budget.name else [],
    }


def _from_elsewhere(dataset: str, one: Assigned) -> list[tuple[str, str]]:
    """Trained stages that are no part of the comparison, so that no budget holds them."""
    planned = planned_stages(one.model, one.more).stages
    made = made_of(ModelRef(dataset, one.model.plans, one.model.detector))
    return [stage for stage in made if stage not in planned]
