"""Errors that a user can cause: each says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

#: Why a case is left out whose work needs more memory than there is.
MEMORY_RAN_OUT = "memory ran out: run again with fewer processes (-np) or more memory"
_SHOWN = 5


class ScreenerError(Exception):
    """A request that cannot be carried out; the message names the reason and the way out.

    Attributes:
        exit_code: of a command that ends with it.
    """

    exit_code: ClassVar[int] = 1


class StoppedError(ScreenerError):
    """A run that was asked to end (SIGTERM) and has kept what it had; the same command goes on.

    A scheduler of jobs can start a run anew that ends with this code, and no other.
    """

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class BusyError(ScreenerError):
    """Another process is at the same work."""


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


def printable(name: str) -> str:
    r"""A file name as text that can be printed and written: bytes that are no UTF-8 become \xff."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def some(names: Iterable[str]) -> str:
    """The first five names in order, and how many more there are, for a message.

    They can be printed, see `printable`.

    Example:
        >>> some(["b", "a"]), some("gfedcba")
        ('a, b', 'a, b, c, d, e and 2 more')
    """
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(map(printable, ordered[:_SHOWN])) + more
