"""Applies a function to each case, in several processes, with a case's own error as its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.pairing import CaseFiles
from screener_nnu.workers import run_cases

Result = TypeVar("Result")


def for_each_case(
    function: Callable[[CaseFiles], Result],
    cases: Sequence[CaseFiles],
    processes: int,
    title: str,
) -> list[Result | CaseError]:
    """Applies a function to each case and returns the results in order.

    Args:
        function: what to do; must pickle when there are several processes.
        cases: cases to do it for.
        processes: cases handled at the same time.
        title: name of the progress bar.

    Raises:
        ScreenerError: a process was killed, also with one case alone.
    """

    def killed(reason: str) -> Result | CaseError:
        raise ScreenerError(
            f"a process was killed while working on {title}, most likely for lack of memory: run "
            "again with -np 1"
        )

    number = 0 if processes <= 1 or len(cases) < 2 else min(processes, len(cases))
    attempt = partial(_attempt, function)
    outcomes = run_cases(attempt, {files.case: files for files in cases}, number, killed)
    results = dict(tqdm(outcomes, title, len(cases), disable=None))
    return [results[files.case] for files in cases]


def _attempt(
    function: Callable[[CaseFiles], Result], case: str, files: CaseFiles
) -> Result | CaseError:
    try:
        return function(files)
    except CaseError as error:
        return error
