"""Cases that turn out to be of no use leave the plans that name them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.planners.existing import names_of, without
from screener_nnu.planners.lock import only_run
from screener_nnu.planners.stored import plans_of
from screener_nnu.plans import Plan, write_json

logger = logging.getLogger(__name__)


def drop_cases(path: Path, data_identifier: str, reasons: dict[str, str]) -> None:
    """Takes cases out of a plan, and out of those that share its cases.

    Args:
        path: of the plan.
        data_identifier: of its cases.
        reasons: why each of them is of no use.

    Raises:
        ScreenerError: no case is left to train on, or none of those that are known to be normal.
    """
    with only_run(path.parent):
        # Read again: another part may have dropped cases of its own in the meantime.
        sharing = [
            (other, plan, _without_dropped(other, plan, reasons))
            for other, plan in plans_of(path.parent)
            if plan.settings.data_identifier == data_identifier
        ]
        # Written once all of them are known to be possible.
        for other, plan, changed in sharing:
            if changed is not plan:
                write_json(other, changed.to_dict())
                count = len(changed.settings.left_out) - len(plan.settings.left_out)
                logger.info("%d cases left out of %s", count, other)


def _without_dropped(path: Path, plan: Plan, reasons: dict[str, str]) -> Plan:
    settings = plan.settings
    dropped = {case: reasons[case] for case in names_of(settings.split) & reasons.keys()}
    if not dropped:
        return plan
    split = without(settings.split, set(dropped))
    if not split.train:
        raise ScreenerError(f"no training case of {path} is left; see the reasons above")
    if settings.split.normal and not split.normal:
        raise ScreenerError(
            f"none of the normal cases of {path} can be used; see the reasons above, and name "
            "others (--normal_cases)"
        )
    left_out = {**settings.left_out, **dropped}
    return plan.with_settings(replace(settings, split=split, left_out=left_out))
