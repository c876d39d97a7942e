"""Which trained stages a teacher is put together from."""

from __future__ import annotations

from screener_nnu.conditions import TRAINED_BY
from screener_nnu.descriptors import OF_THE_PLAN
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.models import UNTRAINED
from screener_nnu.plans import ScreenerSettings
from screener_nnu.sharing.manifest import StageFile


def teacher_stages(density_plans: str, settings: ScreenerSettings) -> list[StageFile]:
    """The trained stages of a teacher, in the order of training.

    Args:
        density_plans: plan of the density.
        settings: that the density was trained with.
    """
    density, kind = settings.density, settings.condition.kind
    if density.descriptor not in OF_THE_PLAN:
        raise ScreenerError(
            f"a teacher on the descriptor '{density.descriptor}' cannot travel: its network is a "
            "file of its own"
        )
    stages = [StageFile(density.descriptor_plans or density_plans, "descriptor")]
    if kind in TRAINED_BY:
        stages.append(StageFile(density.condition_plans or density_plans, TRAINED_BY[kind]))
    trained = [file for file in stages if file.plans_name != UNTRAINED]
    return [*trained, StageFile(density_plans, "density")]
