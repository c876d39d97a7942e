"""A budget of training for each of several detectors: which plans hold the steps that it buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import torch

from screener_nnu.ablation.run import refuse_other_base
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import begun_stages, plan_file
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import OptimiserSettings, Plan, ScreenerSettings, read_plan
from screener_nnu.stages import OPTIMISERS
from screener_nnu.trainers.detector import planned_stages
from screener_nnu.trainers.stages import trainer_of
from screener_nnu.trainers.step_time import Step, step_seconds


@dataclass(frozen=True)
class Budget:
    """What every detector may use; one of the two, or neither for the steps of the plan.

    Attributes:
        steps: of every stage that is trained step by step.
        minutes: of steps, all stages of a detector together.

    Raises:
        ScreenerError: both, or a number that buys nothing.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if self.steps is not None and self.minutes is not None:
            raise ScreenerError("--steps and --minutes are two budgets: give one of them")
        for name, value in (("steps", self.steps), ("minutes", self.minutes)):
            if value is not None and not 0 < value < float("inf"):
                raise ScreenerError(f"--{name} {value}: give a number above 0")

    @property
    def name(self) -> str:
        """Part of the names of plans, such as `s200` or `m2p5`; empty without a budget."""
        if self.steps is not None:
            return f"s{self.steps}"
        return "" if self.minutes is None else f"m{self.minutes:g}".replace(".", "p")

    def __str__(self) -> str:
        """For people."""
        if self.steps is not None:
            return f"{self.steps} steps a stage"
        return "the steps of the plan" if self.minutes is None else f"{self.minutes:g} min of steps"


class Assigned(NamedTuple):
    """A detector under a budget: the model, and settings that its own plan has beside others."""

    model: ModelRef
    more: tuple[str, ...] = ()


class Link(NamedTuple):
    """A stage of a detector that is trained step by step.

    Attributes:
        step: stage, and detector where the stage belongs to it alone.
        optimiser: as planned without a budget.
    """

    step: Step
    optimiser: OptimiserSettings


def schedule(stage: str, steps: int, planned: OptimiserSettings) -> list[str]:
    """Settings of a stage with other steps than planned; warm-up and epochs keep their shares."""
    share = steps / planned.steps
    epoch = min(max(round(planned.steps_per_epoch * share), 1), steps)
    warm_up = min(round(planned.warmup_steps * share), steps)
    values = {"steps": steps, "steps_per_epoch": epoch, "warmup_steps": warm_up}
    return [f"{OPTIMISERS[stage]}.{key}={value}" for key, value in values.items()]


def optimiser_of(settings: ScreenerSettings, stage: str) -> OptimiserSettings:
    """What a plan says of the optimiser of a stage."""
    found: OptimiserSettings = attrgetter(OPTIMISERS[stage])(settings)
    return found


def chain_of(model: ModelRef) -> list[Link]:
    """Stages of a detector that are trained step by step, in order."""
    planned, links = planned_stages(model), []
    shared = read_plan(plan_file(model.dataset, model.plans)).settings
    for stage, plans in planned.stages:
        own = plans != model.plans
        settings = planned.settings if own else shared
        if trainer_of(stage).takes_steps(settings):
            step = stage, model.detector if own else ""
            links.append(Link(step, optimiser_of(settings, stage)))
    return links


def split_minutes(
    chains: Sequence[Sequence[Link]],
    seconds: Mapping[Step, float],
    minutes: float,
    chosen: Mapping[Step, int] | None = None,
) -> dict[Step, int]:
    """Steps that minutes buy, of every link of some chains.

    A chain gives each link the share that planned steps and measured seconds a step make up, so
    that stages keep their ratio. What several chains share is trained once and gets the smallest
    of its shares; the last link of a chain, where it is a detector's own, gets what is left.

    Args:
        chains: of the detectors.
        seconds: a step takes.
        minutes: of each chain.
        chosen: steps that stay as they are.
    """
    chosen = chosen or {}
    steps: dict[Step, int] = {}
    for chain in chains:
        costs = [link.optimiser.steps * seconds[link.step] for link in chain]
        for link, cost in zip(chain, costs, strict=True):
            bought = int(60 * minutes * cost / sum(costs) / seconds[link.step])
            steps[link.step] = max(min(bought, steps.get(link.step, bought)), 1)
    steps |= chosen
    for chain in chains:
        *before, last = [link.step for link in chain]
        if last[1] and last not in chosen:
            left = 60 * minutes - sum(steps[step] * seconds[step] for step in before)
            steps[last] = max(int(left / seconds[last]), 1)
    return steps


def assign_budget(
    dataset: str, base_name: str, detectors: Sequence[str], budget: Budget, device: torch.device
) -> list[Assigned]:
    """Gives every detector a plan that holds its budget.

    Plans are written here, and found again by their names: `<plan>_s<N>`, or `<plan>_m<M>_` and
    the stages that the minutes are split over. Steps that were chosen stay.

    Args:
        dataset: name.
        base_name: plan of the detectors.
        detectors: names of `DETECTORS`.
        budget: of each.
        device: to measure steps on.

    Raises:
        ScreenerError: a plan of such a name was made of another base plan.
    """
    models = [ModelRef(dataset, base_name, name) for name in detectors]
    if not budget.name:
        return [Assigned(model) for model in models]
    base = read_plan(plan_file(dataset, base_name))
    chains = {model.detector: chain_of(model) for model in models}
    assigned = []
    for group in _groups(chains).values():
        name = _group_name(base_name, [chains[detector] for detector in group], budget)
        of_group = {detector: chains[detector] for detector in group}
        steps = _known_steps(dataset, name, base, of_group)
        wanted = {link.step: link for chain in of_group.values() for link in chain}
        missing = [step for step in wanted if step not in steps]
        if budget.steps is not None:
            steps |= dict.fromkeys(missing, budget.steps)
        elif missing and budget.minutes is not None:
            seconds = step_seconds(dataset, base_name, group, f"{name}_timing", device)
            steps = split_minutes(list(of_group.values()), seconds, budget.minutes, steps)
        _write_plan(dataset, base_name, name, base, list(wanted.values()), steps)
        for detector in group:
            own = [link for link in of_group[detector] if link.step[1]]
            more = [w for o in own for w in schedule(o.step[0], steps[o.step], o.optimiser)]
            assigned.append(Assigned(ModelRef(dataset, name, detector), tuple(more)))
    untrained = [Assigned(model) for model in models if not chains[model.detector]]
    found = {one.model.detector: one for one in (*assigned, *untrained)}
    return [found[detector] for detector in detectors]


def _groups(chains: Mapping[str, Sequence[Link]]) -> dict[str, list[str]]:
    """Detectors by the stage that they begin with; what has nothing to train is in none."""
    groups: dict[str, list[str]] = {}
    for detector, chain in chains.items():
        if chain:
            groups.setdefault(chain[0].step[0], []).append(detector)
    return groups


def _group_name(base_name: str, chains: Sequence[Sequence[Link]], budget: Budget) -> str:
    """Of the plan of a group; minutes are split anew where a longer chain joins it."""
    if budget.steps is not None:
        return f"{base_name}_{budget.name}"
    longest = max(chains, key=len)
    ends = dict.fromkeys((longest[0].step[0], longest[-1].step[0]))
    return f"{base_name}_{budget.name}_{'_to_'.join(ends)}"


def _known_steps(
    dataset: str, name: str, base: Plan, chains: Mapping[str, Sequence[Link]]
) -> dict[Step, int]:
    """Steps that plans of an earlier run hold."""
    known: dict[Step, int] = {}
    if not plan_file(dataset, name).is_file():
        return known
    settings, begun = read_plan(plan_file(dataset, name)).settings, begun_stages(dataset, name)
    for link in (link for chain in chains.values() for link in chain):
        stage, detector = link.step
        if not detector:
            steps = optimiser_of(settings, stage).steps
            # A stage that no detector needed then has the steps of the base plan.
            if stage in begun or steps != optimiser_of(base.settings, stage).steps:
                known[link.step] = steps
            continue
        own = plan_file(dataset, ModelRef(dataset, name, detector).trained_plans)
        if own.is_file():
            known[link.step] = optimiser_of(read_plan(own).settings, stage).steps
    return known


def _write_plan(
    dataset: str,
    base_name: str,
    name: str,
    base: Plan,
    links: Sequence[Link],
    steps: Mapping[Step, int],
) -> None:
    """The plan of a group, with the steps of the stages that its detectors share."""
    shared = [link for link in links if not link.step[1]]
    words = [w for link in shared for w in schedule(link.step[0], steps[link.step], link.optimiser)]
    # Stages that were trained have their steps in it already: what is added concerns others.
    derive_plan(dataset, name, words or [f"seed={base.settings.seed}"], base_name, restart=True)
    settings, words = read_plan(plan_file(dataset, name)).settings, []
    for stage in OPTIMISERS:
        planned, now = optimiser_of(base.settings, stage), optimiser_of(settings, stage).steps
        words += schedule(stage, now, planned) if now != planned.steps else []
    expected = base.with_settings(base.settings.override(words))
    for link in links:
        refuse_other_base(dataset, link.step[0], name, base_name, expected)
