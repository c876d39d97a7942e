"""Which trained stages of a teacher travel."""

from __future__ import annotations

from screener_nnu.descriptors import TRAINED_BY
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.models import trained_stages
from screener_nnu.plans import ScreenerSettings
from screener_nnu.sharing.manifest import StageFile


def teacher_stages(density_plans: str, settings: ScreenerSettings) -> list[StageFile]:
    """The trained stages of a teacher, see `trained_stages`.

    Raises:
        ScreenerError: its descriptor is none of the plan's.
    """
    if settings.density.descriptor not in TRAINED_BY:
        raise ScreenerError(
            f"a teacher on the descriptor '{settings.density.descriptor}' cannot travel: its "
            "network is a file of its own"
        )
    stages = trained_stages(density_plans, settings)
    return [StageFile(plans_name, stage) for stage, plans_name in stages]
