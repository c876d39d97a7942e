"""Processes of this machine that work on cases, and go on when one dies."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any, TypeVar

from screener_nnu.ownership import own_folder, owned_folders

logger = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")
# What a case is made from: a path, or a DICOM series.
Item = TypeVar("Item")
Items = list[tuple[str, Item]]
_DIED = (
    "its process was killed twice, most likely for lack of memory: run again with fewer processes "
    "(-np) or more memory"
)


def run_in_processes(
    function: Callable[[str, Item], Outcome],
    cases: Mapping[str, Item],
    processes: int,
    died: Callable[[str], Outcome],
) -> Generator[tuple[str, Outcome], None, None]:
    """Yields (case, outcome) as cases finish; see `run_cases`.

    When a process dies, as Linux kills the largest when memory runs out, only the cases under way
    can have caused it: each of them is tried again, alone, and the others go on.
    """
    waiting = list(cases.items())[::-1]
    while waiting:
        suspects: Items[Item] = []
        yield from _run_until_broken(function, waiting, processes, suspects)
        for case, item in suspects:
            logger.warning("a process died while %s was under way; trying it alone", case)
            again: Items[Item] = []
            yield from _run_until_broken(function, [(case, item)], 1, again)
            if again:
                yield case, died(_DIED)


def _run_until_broken(
    function: Callable[[str, Item], Outcome],
    waiting: Items[Item],
    processes: int,
    suspects: Items[Item],
) -> Generator[tuple[str, Outcome], None, None]:
    """Works `waiting` off from its end; after a death, `suspects` holds what was under way."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_start_worker, initargs=(owned_folders(),)
    )
    running: dict[Future[Any], tuple[str, Item]] = {}
    try:
        while (waiting and not suspects) or running:
            # No more than the processes can hold: whatever was submitted is a suspect.
            while waiting and not suspects and len(running) < processes:
                item = waiting.pop()
                try:
                    running[pool.submit(function, *item)] = item
                except BrokenProcessPool:
                    suspects.append(item)
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                item = running.pop(future)
                try:
                    yield item[0], future.result()
                except BrokenProcessPool:
                    suspects.append(item)
    finally:
        # Also after Ctrl-C: the cases under way finish, which leaves no half-written file.
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(owned: tuple[Path, ...]) -> None:
    """One thread a process, no Ctrl-C of its own, and no life after its parent's.

    Args:
        owned: folders in which only our own files are replaced, see `ownership`.
    """
    for folder in owned:
        own_folder(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=_follow, args=(sentinel,), daemon=True).start()
    # Read when the libraries are imported, which is later and costs nothing here.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _follow(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
