"""Errors that a user can cause: each says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice

_SHOWN = 5


class ScreenerError(Exception):
    """A request that cannot be carried out; the message names the reason and the way out."""


class CaseError(ScreenerError):
    """One case that cannot be used; the others go on.

    Args:
        case: name of the case.
        reason: what is wrong with it and what to do, as one sentence.
    """

    def __init__(self, case: str, reason: str) -> None:
        """Builds the message `case: reason`."""
        super().__init__(f"{case}: {reason}")
        self.case = case
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """Lets the error cross a process border."""
        return type(self), (self.case, self.reason)


def some(names: Collection[str], most: int = _SHOWN) -> str:
    """The first of some names, and how many more there are, for a message.

    Example:
        >>> some(["a", "b", "c"], 2)
        'a, b and 1 more'
    """
    first = ", ".join(islice(names, most))
    return first if len(names) <= most else f"{first} and {len(names) - most} more"
