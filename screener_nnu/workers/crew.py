"""An executor that works on cases: workers of a cluster, which may be killed."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from screener_nnu.errors import ScreenerError
from screener_nnu.ownership import own_folder, owned_folders

logger = logging.getLogger(__name__)
Outcome = TypeVar("Outcome")
Item = TypeVar("Item")

_DIED = (
    "its worker was killed twice, the second time with no other case beside it{where}, most likely "
    "for lack of memory: give workers more"
)
_crew: Crew | None = None


@dataclass(frozen=True)
class Crew:
    """An executor and what is known of its workers.

    Attributes:
        executor: takes functions that can be pickled.
        size: cases that it works on at a time, now.
        alone: gives an executor that runs one case, with more memory than others have where that
            is possible.
        where: of that one, for the message when a case dies there, too.
    """

    executor: Executor
    size: Callable[[], int]
    alone: Callable[[], AbstractContextManager[Executor]]
    where: str = ""

    @classmethod
    def of(cls, executor: Executor) -> Crew:
        """Any executor; a case whose worker died is tried again in the same one."""
        most = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
        return cls(executor, lambda: most, lambda: nullcontext(executor))

    def run(
        self,
        function: Callable[[str, Item], Outcome],
        cases: Mapping[str, Item],
        died: Callable[[str], Outcome],
    ) -> Generator[tuple[str, Outcome], None, None]:
        """Yields (case, outcome) as cases finish; see `run_cases`.

        No more cases are handed out than there are workers, so that a worker that dies takes one
        case with it. That case is tried again when all others are through.
        """
        work = partial(_in_worker, function, owned_folders())
        suspects: dict[str, Item] = {}
        yield from self._run_all(self.executor, work, cases, self.size, suspects)
        if not suspects:
            return
        logger.warning("workers died under %d cases: trying each alone", len(suspects))
        with self.alone() as executor:
            again: dict[str, Item] = {}
            yield from self._run_all(executor, work, suspects, lambda: 1, again)
        for case in again:
            yield case, died(_DIED.format(where=self.where))

    @staticmethod
    def _run_all(
        executor: Executor,
        work: Callable[[str, Item], Outcome],
        cases: Mapping[str, Item],
        size: Callable[[], int],
        suspects: dict[str, Item],
    ) -> Generator[tuple[str, Outcome], None, None]:
        """Works cases off; puts those whose worker died into `suspects`."""
        waiting = list(cases.items())[::-1]
        running: dict[Future[Any], tuple[str, Item]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < max(1, size()):
                    case, item = waiting.pop()
                    running[_submitted(executor, work, case, item)] = case, item
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    case, item = running.pop(future)
                    if _worker_died(future):
                        suspects[case] = item
                    else:
                        yield case, future.result()
        finally:
            # Also after Ctrl-C: the cases under way finish, which leaves no half-written file. To
            # call them off would only make Dask forget them.
            wait(running)


def _submitted(
    executor: Executor, work: Callable[[str, Item], Outcome], case: str, item: Item
) -> Future[Outcome]:
    try:
        return executor.submit(work, case, item)
    except RuntimeError as error:  # it is shut down, or broken by a worker that died
        raise _gone(error) from error


def _worker_died(future: Future[Any]) -> bool:
    """Whether the worker is gone, and not the case at fault.

    Raises:
        ScreenerError: all of the cluster is gone.
    """
    try:
        error = future.exception()
    except CancelledError as cancelled:
        raise _gone(cancelled) from cancelled
    # Dask's own is known by its name: the package need not be installed.
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def _gone(error: BaseException) -> ScreenerError:
    return ScreenerError(
        f"the workers are gone ({str(error) or type(error).__name__}): see whether the cluster is "
        "there, and run the same command again, which goes on"
    )


def _in_worker(
    function: Callable[[str, Item], Outcome], owned: tuple[Path, ...], case: str, item: Item
) -> Outcome:
    """Keeps to the rule of `ownership` in the worker, too."""
    for folder in owned:
        own_folder(folder)
    return function(case, item)


@contextmanager
def working_with(crew: Crew) -> Iterator[None]:
    """Hands the cases of every `run_cases` to a crew, as long as the block lasts."""
    global _crew
    _crew = crew
    try:
        yield
    finally:
        _crew = None


def current_crew() -> Crew | None:
    """What works on cases now; None: processes of this machine."""
    return _crew
