"""Many cases in one sentence."""

from __future__ import annotations

from collections.abc import Iterable

_NAMED = 5


def first_names(cases: Iterable[str]) -> str:
    """The first five names in order, and how many more there are.

    >>> first_names(["b", "a"]), first_names("gfedcba")
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    names = sorted(cases)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
