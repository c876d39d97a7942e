"""The stages that a detector, or a start of fine-tuning, is trained by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from screener_nnu import conditions, descriptors
from screener_nnu.descriptors import PRETEXT
from screener_nnu.detectors import BASELINE, IGD, ModelRef
from screener_nnu.paths import plan_file
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import PICTURES, ScreenerSettings, read_plan
from screener_nnu.starts import START, overrides_of, start_plans


class PlannedDetector(NamedTuple):
    """How a detector is to be trained.

    Attributes:
        stages: in order, each with the plan that it is trained under; networks that come from
            elsewhere are left out.
        overrides: settings of its own plan, which is none without them.
        settings: of its last stage.
    """

    stages: list[tuple[str, str]]
    overrides: list[str]
    settings: ScreenerSettings


def planned_stages(model: ModelRef, more: Sequence[str] = ()) -> PlannedDetector:
    """Stages and settings of a detector; nothing is written.

    Args:
        model: names plan and detector; the plan is there.
        more: settings of the detector's own plan beside those that it has by its name.
    """
    plan = read_plan(plan_file(model.dataset, model.plans))
    settings, own = plan.settings, model.trained_plans
    if model.spec.overrides:
        pictured = plan.configuration_name == PICTURES
        differs = [*model.spec.overrides, *(model.spec.of_pictures if pictured else ())]
        differs += [*_lengthened(settings, model), *more]
        changed = settings.override(differs)
        stages = [*_before(changed, model), (model.stage, own)]
        return PlannedDetector(stages, [*differs, *_sources(changed, model)], changed)
    if model.stage in (IGD, BASELINE):
        return PlannedDetector([*_before(settings, model), (model.stage, own)], [], settings)
    networks = [*_networks(settings, model.plans), ("density", model.plans)]
    if model.stage == "density":
        return PlannedDetector(networks, [], settings)
    before = [] if settings.distillation.density_plans else networks
    return PlannedDetector([*before, (model.stage, own)], [], settings)


def stages_of(
    model: ModelRef, restart: bool = False, more: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Stages of a detector in order, each with the plan that it is trained under.

    The plan of a detector that has settings of its own is made here. Networks that come from
    elsewhere are left out.

    Args:
        model: names plan and detector; the plan is there.
        restart: a plan of its own may change although it was trained.
        more: settings of such a plan beside those that it has by its name.

    Raises:
        ScreenerError: no plan, or the detector's own plan was trained with other settings.
    """
    planned = planned_stages(model, more)
    if planned.overrides:
        derive_plan(model.dataset, model.trained_plans, planned.overrides, model.plans, restart)
    return planned.stages


def _lengthened(settings: ScreenerSettings, model: ModelRef) -> list[str]:
    """Settings of the schedule of a detector that takes more steps than the plan says."""
    if model.spec.length == 1:
        return []
    steps, stage = getattr(settings, model.stage).optimiser, model.stage
    return [
        f"{stage}.optimiser.{key}={model.spec.length * getattr(steps, key)}"
        for key in ("steps", "steps_per_epoch", "warmup_steps")
    ]


def stages_of_start(
    dataset: int | str, plans_name: str, name: str, restart: bool = False
) -> list[tuple[str, str]]:
    """The stage of a start with its plan, which is made here.

    Args:
        dataset: number or name.
        plans_name: that its plan is made from.
        name: of the start.
        restart: its plan may change although it was trained.

    Raises:
        ScreenerError: no plan, or its own plan was trained with other settings.
    """
    own = start_plans(plans_name, name)
    derive_plan(dataset, own, overrides_of(name), plans_name, restart)
    return [(START, own)]


def _sources(settings: ScreenerSettings, model: ModelRef) -> list[str]:
    """Settings by which a plan of a detector's own takes the networks of the model's plan."""
    if model.stage == BASELINE:
        return []
    if model.stage == IGD:
        return [f"igd.pretext_plans={settings.igd.pretext_plans or model.plans}"]
    shared = ["descriptor_plans"]
    shared += ["condition_plans"] if settings.condition.kind in conditions.TRAINED_BY else []
    return [f"density.{k}={getattr(settings.density, k) or model.plans}" for k in shared]


def _before(settings: ScreenerSettings, model: ModelRef) -> list[tuple[str, str]]:
    """The stages of the model's plan that its last one builds on."""
    if model.stage == BASELINE:
        return []
    if model.stage != IGD:
        return _networks(settings, model.plans)
    needed = model.plans in settings.igd.sources(model.plans).values()
    return [(PRETEXT, model.plans)] if needed else []


def _networks(settings: ScreenerSettings, plans: str) -> list[tuple[str, str]]:
    """The stages of descriptor and condition that belong to the plan itself."""
    density, condition = settings.density, settings.condition.kind
    stages = []
    if density.descriptor in descriptors.TRAINED_BY and not density.descriptor_plans:
        stages.append((descriptors.TRAINED_BY[density.descriptor], plans))
    if condition in conditions.TRAINED_BY and not density.condition_plans:
        stages.append((conditions.TRAINED_BY[condition], plans))
    return stages
