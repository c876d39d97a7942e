"""A budget for each of several detectors or starts: which plans hold the steps that it buys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import torch

from screener_nnu.ablation.run import refuse_other_base
from screener_nnu.ablation.schedules import (
    Link,
    changed_schedules,
    keep_seconds,
    kept_seconds,
    optimiser_of,
    schedule,
    split_minutes,
)
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import begun_stages, plan_file
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import Plan, read_plan
from screener_nnu.trainers.detector import Trained, planned_stages, trained_ref
from screener_nnu.trainers.stages import trainer_of
from screener_nnu.trainers.step_time import Guard, Step, step_seconds


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
    """A detector, or a start, under a budget.

    Attributes:
        model: names plan and detector.
        more: settings that its own plan has beside others.
        minutes: of steps that it was given, by measured seconds a step; None where none was asked
            for or the measurement is lost.
    """

    model: Trained
    more: tuple[str, ...] = ()
    minutes: float | None = None


def chain_of(model: Trained) -> list[Link]:
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


def assign_budget(
    dataset: str,
    base_name: str,
    detectors: Sequence[str],
    budget: Budget,
    device: torch.device,
    guard: Guard = nullcontext,
    one_plan: bool = False,
) -> list[Assigned]:
    """Gives every detector a plan that holds its budget.

    Plans are written here, and found again by their names: `<plan>_s<N>`, or `<plan>_m<M>_` and
    the stages that the minutes are split over. Steps that were chosen stay.

    Args:
        dataset: name.
        base_name: plan of the detectors.
        detectors: what `screener_train` calls them; of stages and starts, too.
        budget: of each.
        device: to measure steps on.
        guard: context of the work for one detector. Where it catches an error, the detector is
            left out; plans are called as if it were there.
        one_plan: all are assigned the same plan, also those that share no stage.

    Raises:
        ScreenerError: a plan of such a name was made of another base plan, or has other steps.
    """
    models = [trained_ref(dataset, base_name, name) for name in detectors]
    if not budget.name:
        return [Assigned(model) for model in models]
    base = read_plan(plan_file(dataset, base_name))
    chains: dict[str, list[Link]] = {}
    for model in models:
        with guard(model.detector):
            chains[model.detector] = chain_of(model)
    found = {m.detector: Assigned(m) for m in models if not chains.get(m.detector, [None])}
    for group in _groups(chains, one_plan).values():
        name = _group_name(base_name, [chains[detector] for detector in group], budget)
        of_group = {detector: chains[detector] for detector in group}
        steps = _known_steps(dataset, name, base, of_group)
        seconds: dict[Step, float] = {}
        needed = {link.step for chain in of_group.values() for link in chain}
        missing = needed - steps.keys()
        if budget.steps is not None:
            _refuse_other_steps(dataset, name, steps, budget.steps)
            steps |= dict.fromkeys(missing, budget.steps)
        elif budget.minutes is not None:
            seconds = kept_seconds(dataset, name)
            if missing:
                # What a run that was killed before it trained them has measured is kept.
                measured = seconds if plan_file(dataset, name).is_file() else {}
                if not needed <= measured.keys():
                    timing = f"{name}_timing"
                    measured = step_seconds(dataset, base_name, group, timing, device, guard)
                # Steps that stay were chosen by what was measured then.
                seconds = measured | {s: value for s, value in seconds.items() if s in steps}
                of_group = {
                    detector: chain
                    for detector, chain in of_group.items()
                    if all(link.step in measured for link in chain)
                }
                steps = split_minutes(list(of_group.values()), measured, budget.minutes, steps)
                keep_seconds(dataset, name, seconds)
        if not of_group:
            continue
        wanted = {link.step: link for chain in of_group.values() for link in chain}
        _write_plan(dataset, base_name, name, base, list(wanted.values()), steps)
        for detector, chain in of_group.items():
            own = [link for link in chain if link.step[1]]
            more = [w for o in own for w in schedule(o.step[0], steps[o.step], o.optimiser)]
            known = all(link.step in seconds for link in chain)
            spent = sum(steps[o.step] * seconds[o.step] for o in chain) / 60 if known else None
            model = trained_ref(dataset, name, detector)
            found[detector] = Assigned(model, tuple(more), spent)
    return [found[detector] for detector in detectors if detector in found]


def _groups(chains: Mapping[str, Sequence[Link]], one_plan: bool) -> dict[str, list[str]]:
    """Detectors by the stage that they begin with; what has nothing to train is in none."""
    groups: dict[str, list[str]] = {}
    for detector, chain in chains.items():
        if chain:
            groups.setdefault("" if one_plan else chain[0].step[0], []).append(detector)
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
        own = plan_file(dataset, trained_ref(dataset, name, detector).trained_plans)
        if own.is_file():
            known[link.step] = optimiser_of(read_plan(own).settings, stage).steps
    return known


def _refuse_other_steps(dataset: str, name: str, known: Mapping[Step, int], steps: int) -> None:
    """Refuses a plan of the name of a budget that does not keep it."""
    for (stage, detector), number in known.items():
        if number != steps:
            plans = trained_ref(dataset, name, detector).trained_plans if detector else name
            raise ScreenerError(
                f"the plan {plans} has {number} steps for its {stage} stage, not --steps {steps}: "
                f"delete {plan_file(dataset, plans)} and its results, give --steps {number}, or "
                "compare detectors of a plan of another name (-p)"
            )


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
    words = changed_schedules(base, read_plan(plan_file(dataset, name)).settings)
    expected = base.with_settings(base.settings.override(words))
    for link in links:
        refuse_other_base(dataset, link.step[0], name, base_name, expected)
