"""Variants: the same data with other settings is another plan, so that runs never overwrite."""

from __future__ import annotations

from dataclasses import replace

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import begun_stages, plan_file
from screener_nnu.planners.settings_check import check_settings
from screener_nnu.plans import DEFAULT_PLANS_NAME, read_plan, write_json


def derive_plan(
    dataset: int | str,
    plans_name: str,
    overrides: list[str],
    from_plans: str | None = None,
    restart: bool = False,
) -> None:
    """Writes the plan `plans_name` as `from_plans` (`ScreenerPlans`) with overridden settings.

    An existing plan with just these settings is left as it is.

    Raises:
        ScreenerError: the plan exists with other settings and something was trained with it; or it
            does not exist, and neither settings nor a plan to copy were given.
    """
    path = plan_file(dataset, plans_name)
    if not overrides and path.is_file():
        return
    given = plan_file(dataset, from_plans or DEFAULT_PLANS_NAME)
    if from_plans is None and not overrides and given.is_file():
        raise ScreenerError(
            f"there is no plan {plans_name} ({path}): correct the name, or give settings with -o "
            f"KEY=VALUE that make it a variant of {DEFAULT_PLANS_NAME}"
        )
    source = path if path.is_file() else given
    plan = read_plan(source)
    settings, changed = plan.settings, plan.settings.override(overrides)
    if changed.preprocessing != settings.preprocessing:
        raise ScreenerError(
            "preprocessing belongs to the cases, which variants of a plan share: change it with "
            "screener_plan_and_preprocess and a plan name of its own (-p)"
        )
    if path.is_file() and changed == settings:
        return
    if path.is_file() and not restart:
        trained = begun_stages(dataset, plans_name)
        # How many processes read changes no result.
        if trained and changed != replace(settings, workers=changed.workers):
            raise ScreenerError(
                f"{plans_name} has other settings and trained stages ({', '.join(trained)}): "
                "name the variant with -p, for instance -p ScreenerPlans_variant, or train it anew "
                "with --restart"
            )
    variant = plan.with_settings(changed)
    check_settings(variant)
    write_json(path, {**variant.to_dict(), "plans_name": plans_name})
