"""The one door for work on cases."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor
from typing import TypeVar

from screener_nnu.errors import ScreenerError
from screener_nnu.workers.crew import Crew, current_crew
from screener_nnu.workers.local_pool import run_in_processes

Outcome = TypeVar("Outcome")
# What a case is made from: a path, or a DICOM series.
Item = TypeVar("Item")


def part_of(cases: Mapping[str, Item], part: int, parts: int) -> dict[str, Item]:
    """The share of a machine: every so many-th case by name, the same wherever it is asked for.

    Raises:
        ScreenerError: there is no such part.

    Example:
        >>> part_of({"a": 1, "b": 2, "c": 3}, 0, 2)
        {'a': 1, 'c': 3}
    """
    if not 0 <= part < parts:
        raise ScreenerError(f"no part {part} of {parts}: parts are counted from 0 to {parts - 1}")
    return {case: cases[case] for case in sorted(cases)[part::parts]}


def run_cases(
    function: Callable[[str, Item], Outcome],
    cases: Mapping[str, Item],
    processes: int,
    died: Callable[[str], Outcome],
    executor: Executor | None = None,
) -> Generator[tuple[str, Outcome], None, None]:
    """Yields (case, outcome) as cases finish.

    A worker that dies, mostly for lack of memory, costs no other case: its own is tried again with
    none beside it.

    Args:
        function: called with a case and what it is made from, in another process; can be pickled.
        cases: what to run.
        processes: of this machine at a time; 0 runs everything in this process. An executor does
            not look at it.
        died: makes the outcome of a case whose process also died alone from the reason.
        executor: what works in place of processes of this machine; by default what `working_with`
            named, if anything.

    Raises:
        ScreenerError: the executor is gone.
        Exception: what the function raises.
    """
    crew = Crew.of(executor) if executor is not None else current_crew()
    if crew is not None:
        yield from crew.run(function, cases, died)
    elif processes:
        yield from run_in_processes(function, cases, processes, died)
    else:
        for case, item in cases.items():
            yield case, function(case, item)
