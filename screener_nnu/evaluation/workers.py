"""Applies a function to each case, in several processes, with a case's own error as its result."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.evaluation.cases import CaseFiles
from screener_nnu.ownership import own_folder, owned_folders

Result = TypeVar("Result")


def for_each_case(
    function: Callable[[CaseFiles], Result],
    cases: Sequence[CaseFiles],
    processes: int,
    title: str,
) -> Iterator[Result | CaseError]:
    """Applies a function to each case and yields the results in order.

    Args:
        function: what to do; must pickle when there are several processes.
        cases: cases to do it for.
        processes: cases handled at the same time.
        title: name of the progress bar.

    Raises:
        ScreenerError: a process was killed.
    """
    attempt = partial(_attempt, function)
    if processes <= 1 or len(cases) < 2:
        yield from tqdm(map(attempt, cases), title, len(cases), disable=None)
        return
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(
            min(processes, len(cases)), context, _own_folders, (owned_folders(),)
        ) as pool:
            yield from tqdm(pool.map(attempt, cases), title, len(cases), disable=None)
    except BrokenProcessPool as error:
        raise ScreenerError(
            f"a process was killed while working on {title}, most likely for lack of memory: run "
            "again with -np 1"
        ) from error


def _own_folders(folders: tuple[Path, ...]) -> None:
    """Puts folders under the rule of `ownership` in a process that works for another."""
    for folder in folders:
        own_folder(folder)


def _attempt(function: Callable[[CaseFiles], Result], files: CaseFiles) -> Result | CaseError:
    try:
        return function(files)
    except CaseError as error:
        return error
