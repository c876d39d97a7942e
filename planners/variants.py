"""Variants: the same data with other settings is another plan, so that runs never overwrite."""

from __future__ import annotations

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import begun_stages, plan_file
from screener_nnu.plans import read_plan, write_json


def derive_plan(
    dataset: int | str,
    plans_name: str,
    overrides: list[str],
    from_plans: str = "ScreenerPlans",
    restart: bool = False,
) -> None:
    """Writes the plan `plans_name` as `from_plans` with overridden settings.

    An existing plan with just these settings is left as it is.

    Raises:
        ScreenerError: the plan exists with other settings and something was trained with it.
    """
    path = plan_file(dataset, plans_name)
    if not overrides and path.is_file():
        return
    source = path if path.is_file() else plan_file(dataset, from_plans)
    plan, settings = read_plan(source)
    changed = settings.override(overrides)
    if changed.preprocessing != settings.preprocessing:
        raise ScreenerError(
            "preprocessing belongs to the cases, which variants of a plan share: change it with "
            "screener_plan_and_preprocess and a plan name of its own (-p)"
        )
    if path.is_file() and changed == settings:
        return
    if path.is_file() and not restart:
        trained = begun_stages(dataset, plans_name)
        if trained:
            raise ScreenerError(
                f"{plans_name} has other settings and trained stages ({', '.join(trained)}): "
                "name the variant with -p, for instance -p ScreenerPlans_variant"
            )
    plan["plans_name"] = plans_name
    plan["screener"] = changed.to_dict()
    write_json(path, plan)
