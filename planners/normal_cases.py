"""The list of cases that a person knows to be normal."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from screener_nnu.errors import ScreenerError, printable, some
from screener_nnu.files import refuse_missing
from screener_nnu.plans import SplitSettings, read_plan

logger = logging.getLogger(__name__)


def read_normal_cases(path: Path, cases: Collection[str]) -> tuple[str, ...]:
    """Reads a list of cases, a name a line; empty lines and those that begin with # do not count.

    Args:
        path: text in UTF-8.
        cases: all cases of the data set.

    Returns:
        The names, sorted, each once.

    Raises:
        ScreenerError: it cannot be read, names no case, or names what is no case of the data set.
    """
    refuse_missing(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ScreenerError(f"{path} is no text in UTF-8 ({error}): save it so") from error
    names = {printable(line.strip()) for line in lines}
    names = {name for name in names if name and name[0] != "#"}
    if not names:
        raise ScreenerError(f"{path} names no case: write one a line, or leave --normal_cases out")
    unknown = names - set(cases)
    if unknown:
        raise ScreenerError(
            f"{path} names {len(unknown)} that are no cases of the data set ({some(unknown)}): "
            f"write them as {min(cases)}, without _0000 and the ending of the file; those of a "
            "pool begin with the number of their data set"
        )
    return tuple(sorted(names))


def stored_normal_cases(plan_path: Path) -> tuple[str, ...]:
    """The normal cases of a plan that is there; empty without one."""
    if not plan_path.is_file():
        return ()
    names = read_plan(plan_path).settings.split.normal
    if names:
        logger.info(
            "%s knows %d cases as normal, which stays so: --normal_cases gives another list, -p "
            "another plan",
            *(plan_path, len(names)),
        )
    return names


def with_normal_cases(split: SplitSettings, names: Collection[str]) -> SplitSettings:
    """A split that knows which of its training cases are normal.

    Args:
        split: without that.
        names: of normal cases of any use; without any, nothing is known.

    Raises:
        ScreenerError: none of them is a training case.
    """
    normal = tuple(case for case in split.train if case in set(names))
    if names and not normal:
        validating = len(set(names) & set(split.validation))
        raise ScreenerError(
            f"of the {len(names)} normal cases that --normal_cases names none is to train on "
            f"({validating} validate, {len(set(names) & set(split.test))} are kept for evaluation, "
            "the others cannot be used): name more of them"
        )
    return replace(split, normal=normal)
