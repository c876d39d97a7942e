"""Whether a plan that is there already stays."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from screener_nnu.errors import ScreenerError, some
from screener_nnu.paths import begun_stages
from screener_nnu.planners.stored import Fingerprint, planned_from
from screener_nnu.plans import Plan, ScreenerSettings, SplitSettings, read_plan

logger = logging.getLogger(__name__)


def existing_plan_stays(
    path: Path, fingerprint: Fingerprint, plan: Plan, planned: Callable[[Fingerprint], Plan]
) -> bool:
    """Whether a plan stays, because something was made with it; logs why.

    A plan is a decision: scans that were replaced since do not change it. What was asked for is the
    same as then when it makes the same plan of the fingerprint that the plan came from.

    Args:
        path: of the plan that may be there.
        fingerprint: of the scans as they are now.
        plan: that is made from it.
        planned: makes the plan that is asked for from another fingerprint.

    Raises:
        ScreenerError: cases were made with it, and what is asked for needs others.
    """
    if not path.is_file():
        return False
    old = read_plan(path)
    now, was = plan.settings, old.settings
    folder = path.parent / was.data_identifier
    if not (folder.is_dir() and any(folder.iterdir())):
        return False
    way_out = f"give the new plan another name with -p, or delete {path} and {folder}"
    other_normal = _split_without_gone(now, was).normal != was.split.normal
    if _fits(now, was):
        begun = begun_stages(plan.dataset, path.stem)
        if other_normal and begun:
            raise ScreenerError(
                f"stages of {path} ({', '.join(begun)}) were begun with other normal cases than "
                f"--normal_cases names; {way_out}"
            )
        if begun or not other_normal and was.split != now.split:
            logger.info("%s stays as it is: its cases and stages were made with it", path)
            return True
        return False
    others = _other_scans(fingerprint, now, was)
    if others:
        raise ScreenerError(f"the scans or the split of {path} have changed ({others}); {way_out}")
    fitting = (_fits(planned(earlier).settings, was) for earlier in planned_from(path.parent, old))
    if not other_normal and any(fitting):
        logger.info(
            "%s stays as it is, though its scans are not what they were: cases and stages go on "
            "with its settings; a plan of the scans as they are now needs another name (-p)",
            path,
        )
        return True
    if _use_of_cases(_split_without_gone(now, was)) != _use_of_cases(was.split):
        raise ScreenerError(f"the scans or the split of {path} have changed; {way_out}")
    raise ScreenerError(f"{path} was planned with other settings; {way_out}")


def _fits(now: ScreenerSettings, was: ScreenerSettings) -> bool:
    """Whether today's settings need the same cases in the same use."""
    return now.preprocessing == was.preprocessing and (
        _use_of_cases(_split_without_gone(now, was)) == _use_of_cases(was.split)
    )


def _use_of_cases(split: SplitSettings) -> SplitSettings:
    """A split without what is known of its cases, which changes none of them."""
    return replace(split, normal=())


def _split_without_gone(now: ScreenerSettings, was: ScreenerSettings) -> SplitSettings:
    # Cases that could not be preprocessed have left the old plan: the new one still names them.
    return without(now.split, set(was.left_out) - set(now.left_out))


def _other_scans(fingerprint: Fingerprint, now: ScreenerSettings, was: ScreenerSettings) -> str:
    """Scans of the plan that are no longer there, and new ones; empty without either."""
    gone = names_of(was.split) - fingerprint["sources"].keys()
    new = names_of(now.split) - names_of(was.split) - was.left_out.keys()
    parts = [("no longer there: ", gone), ("new: ", new)]
    return "; ".join(text + some(names) for text, names in parts if names)


def names_of(split: SplitSettings) -> set[str]:
    """All cases of a split."""
    return {*split.train, *split.validation, *split.test}


def without(split: SplitSettings, gone: set[str]) -> SplitSettings:
    """A split without some cases; a training case stands in when none is left to validate."""
    train, validation, test = (
        tuple(case for case in cases if case not in gone)
        for cases in (split.train, split.validation, split.test)
    )
    normal = tuple(case for case in split.normal if case not in gone)
    return SplitSettings(train, validation or train[:1], test, normal)
