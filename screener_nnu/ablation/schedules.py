"""Steps of stages: what plans say of them, and what minutes buy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from screener_nnu.paths import results_folder
from screener_nnu.plans import OptimiserSettings, Plan, ScreenerSettings, write_json
from screener_nnu.stages import OPTIMISERS
from screener_nnu.trainers.step_time import Step

_SHARED = "shared"


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


def planned_schedule(plan: Plan, stage: str) -> list[str]:
    """Settings of a stage with just the steps of a plan."""
    planned = optimiser_of(plan.settings, stage)
    return schedule(stage, planned.steps, planned)


def changed_schedules(base: Plan, settings: ScreenerSettings) -> list[str]:
    """Schedules of the stages whose steps differ from those of a base plan, as settings of it."""
    words = []
    for stage in OPTIMISERS:
        planned, now = optimiser_of(base.settings, stage), optimiser_of(settings, stage).steps
        words += schedule(stage, now, planned) if now != planned.steps else []
    return words


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


def keep_seconds(dataset: str, name: str, seconds: Mapping[Step, float]) -> None:
    """Keeps the measured seconds a step by which the steps of a plan `name` were chosen."""
    values: dict[str, dict[str, float]] = {}
    for (stage, detector), value in seconds.items():
        values.setdefault(detector or _SHARED, {})[stage] = value
    write_json(results_folder(dataset) / f"{name}_seconds.json", values)


def kept_seconds(dataset: str, name: str) -> dict[Step, float]:
    """What `keep_seconds` kept; nothing where it is not there or damaged."""
    path = results_folder(dataset) / f"{name}_seconds.json"
    try:
        values = json.loads(path.read_text())
        return {
            (stage, "" if detector == _SHARED else detector): float(value)
            for detector, of_detector in values.items()
            for stage, value in of_detector.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
