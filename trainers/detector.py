"""The stages that a detector, a start of fine-tuning or a stage by itself is trained by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from screener_nnu import conditions, descriptors
from screener_nnu.descriptors import PRETEXT
from screener_nnu.detectors import BASELINE, DETECTORS, IGD, ModelRef
from screener_nnu.paths import plan_file
from screener_nnu.planners.variants import derive_plan
from screener_nnu.plans import PICTURES, ScreenerSettings, read_plan
from screener_nnu.stages import STAGES
from screener_nnu.starts import METHODS, PREFIX, START, overrides_of, start_plans


class StageRef(NamedTuple):
    """Names one stage that is no detector.

    Attributes:
        dataset: number or name of the data set that it learns from.
        plans: plan of that data set.
        detector: what `screener_train` calls it: the stage, or `start_` and a method of a start,
            which is trained under a plan of its own.
    """

    dataset: int | str
    plans: str
    detector: str

    @property
    def method(self) -> str:
        """Of a start with a plan of its own; otherwise empty."""
        known = self.detector.startswith(PREFIX)
        return self.detector.removeprefix(PREFIX) if known else ""

    @property
    def stage(self) -> str:
        """Its name."""
        return START if self.method else self.detector

    @property
    def trained_plans(self) -> str:
        """The plan that it is trained under."""
        return start_plans(self.plans, self.method) if self.method else self.plans

    @property
    def overrides(self) -> list[str]:
        """Settings of a plan of its own."""
        return overrides_of(self.method) if self.method else []


#: What can be trained.
Trained = ModelRef | StageRef
#: Words of `screener_train` that name no detector.
STAGE_WORDS = (
    *(stage for stage in STAGES if stage not in DETECTORS),
    *(f"{PREFIX}{method}" for method in METHODS),
)


def trained_ref(dataset: int | str, plans: str, word: str) -> Trained:
    """What a word of `screener_train` names: a detector or a stage.

    Raises:
        ScreenerError: neither.
    """
    if word in STAGE_WORDS:
        return StageRef(dataset, plans, word)
    return ModelRef(dataset, plans, word)


class PlannedDetector(NamedTuple):
    """How a detector, or a stage, is to be trained.

    Attributes:
        stages: in order, each with the plan that it is trained under; networks that come from
            elsewhere are left out.
        overrides: settings of its own plan, which is none without them.
        settings: of its last stage.
    """

    stages: list[tuple[str, str]]
    overrides: list[str]
    settings: ScreenerSettings


def planned_stages(model: Trained, more: Sequence[str] = ()) -> PlannedDetector:
    """Stages and settings of a detector or a stage; nothing is written.

    Args:
        model: names plan and detector; the plan is there.
        more: settings of the detector's own plan beside those that it has by its name.
    """
    plan = read_plan(plan_file(model.dataset, model.plans))
    settings, own = plan.settings, model.trained_plans
    if isinstance(model, StageRef):
        differs = [*model.overrides, *more] if model.overrides else []
        return PlannedDetector([(model.stage, own)], differs, settings.override(differs))
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
    model: Trained, restart: bool = False, more: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Stages of a detector in order, each with the plan that it is trained under.

    The plan of a detector, or a start, that has settings of its own is made here. Networks that
    come from elsewhere are left out.

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
