"""Batches of a stage, read by processes of their own that are never waited for in vain."""

from __future__ import annotations

import copy
import logging
import multiprocessing.queues
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from screener_nnu.devices import free_shared_memory
from screener_nnu.errors import ScreenerError
from screener_nnu.trainers.reading import CaseReader

logger = logging.getLogger(__name__)
Sample = TypeVar("Sample")

#: Batches that each reading process keeps ready.
PREFETCHED = 2
#: Time (s) between warnings that no batch came, and how many of them before it is given up.
_PATIENCE, _MAX_PAUSES = 60.0, 10
#: How torch's words begin where it lost a process, or could not hear from one.
_LOSSES = ("DataLoader worker (pid", "Pin memory thread exited", "Too many open files")
_WITHOUT_WORKERS = (
    'read without other processes (-o workers=0, or "workers": 0 in the plan of a run that has '
    "begun)"
)


def step_batches(
    reader: CaseReader[Sample],
    volumes: int,
    first_step: int,
    rank_offset: int,
    volumes_of_rank: int,
    workers: int,
) -> Iterator[list[Sample]]:
    """Batches of all steps from `first_step` on; sample numbers are the same for any workers.

    Raises:
        ScreenerError: shared memory is too small; by the iterator: a reading process hangs, or no
            case can be read. See `lost_workers_named` for one that died.
    """
    steps = _EndlessSteps(volumes, first_step, rank_offset, volumes_of_rank)
    if workers:
        _check_shared_memory(reader, next(iter(steps)), workers * volumes // volumes_of_rank)
    loader = DataLoader(
        _Answers(reader),
        batch_sampler=steps,
        num_workers=workers,
        collate_fn=list,
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=_begin_worker if workers else None,
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return _batches(iter(loader))


def _batches(loaded: Any) -> Iterator[list[Any]]:
    while True:
        batch = _next_batch(loaded)
        for sample in batch:
            if isinstance(sample, Exception):
                raise sample
        yield batch


def _next_batch(loaded: Any) -> list[Any]:
    """The next batch, for which a process that hangs or is gone is not waited for ever."""
    watch = _Watch(getattr(loaded, "_workers", ()))
    try:
        with watch:
            return next(loaded)
    except (EOFError, OSError, RuntimeError) as error:
        if watch.gave_up:
            raise _lost(f"no batch came for {_MAX_PAUSES * _PATIENCE:.0f} s") from error
        if not isinstance(error, RuntimeError):  # cut off while a batch was handed over
            raise _lost(f"it ended while it handed over a batch ({error!r})") from error
        raise


class _Watch:
    """Kills processes when a block lasts too long, which ends all waiting for them.

    A process that hangs may have announced a batch already, and torch's own limit is of no use
    where that is fetched.
    """

    def __init__(self, workers: Sequence[Any]) -> None:
        self.workers, self.gave_up = workers, False
        self._done = threading.Event()

    def __enter__(self) -> None:
        if self.workers:
            threading.Thread(target=self._wait, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._done.set()

    def _wait(self) -> None:
        for pause in range(1, _MAX_PAUSES + 1):
            if self._done.wait(_PATIENCE):
                return
            logger.warning("no batch of cases for %.0f s: still waiting", pause * _PATIENCE)
        self.gave_up = True
        for worker in self.workers:
            worker.kill()


@contextmanager
def lost_workers_named() -> Iterator[None]:
    """Says what to do where torch notices that a reading process died, which it does anywhere.

    Raises:
        ScreenerError: in place of torch's `RuntimeError`, which only its words tell from others.
    """
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(_LOSSES):
            raise
        raise _lost(str(error)) from error


def _lost(reason: str) -> ScreenerError:
    free = free_shared_memory()
    left = "" if free is None else f" ({_megabytes(free)} of shared memory are free now)"
    reason = reason.splitlines()[0].rstrip(" .")
    return ScreenerError(
        f"a process that reads cases was lost: {reason}. Perhaps memory or shared "
        f"memory ran out{left}: give a container more (docker run --shm-size=8g), or "
        f"{_WITHOUT_WORKERS}; then the same command goes on"
    )


def _check_shared_memory(reader: CaseReader[Any], first: list[int], workers: int) -> None:
    """Refuses to start where batches that wait to be used would not fit in shared memory.

    A process that finds it full dies or, worse, drops its batch.
    """
    free = free_shared_memory()
    if free is None:
        return
    own = copy.copy(reader)  # files that are open here would not get into another process
    needed = workers * PREFETCHED * sum(_shared_bytes(own[index]) for index in first)
    if needed > free:
        raise ScreenerError(
            f"{workers} reading processes keep about {_megabytes(needed)} of batches in shared "
            f"memory (/dev/shm), where {_megabytes(free)} are free: give a container more (docker "
            f"run --shm-size={-(-2 * needed // 10**9)}g), or {_WITHOUT_WORKERS}"
        )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"


def _shared_bytes(sample: Any) -> int:
    """Bytes of the tensors of a sample; a view brings all that it is a view of."""
    if isinstance(sample, torch.Tensor):
        return sample.untyped_storage().nbytes()
    if is_dataclass(sample):
        return sum(_shared_bytes(getattr(sample, f.name)) for f in fields(sample))
    return sum(map(_shared_bytes, sample)) if isinstance(sample, tuple) else 0


class _Answers(Dataset[Any], Generic[Sample]):
    """Gives errors that a user can understand as samples: torch would wrap them in a traceback."""

    def __init__(self, reader: CaseReader[Sample]) -> None:
        self.reader = reader

    def __getitem__(self, index: int) -> Sample | Exception:
        try:
            return self.reader[index]
        except (ScreenerError, OSError) as error:
            return error


def _begin_worker(_: int) -> None:
    torch.set_num_threads(1)
    # A scheduler tells every process of a job to end; this one is needed until the last step.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A batch that cannot be sent, for lack of shared memory, is else dropped without a word.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, _: object) -> None:
    print(f"a batch cannot be sent: {error}", file=sys.stderr, flush=True)
    os._exit(1)


class _EndlessSteps:
    """Sample numbers of this rank, step by step, without end."""

    def __init__(self, volumes: int, first_step: int, offset: int, own: int) -> None:
        self.volumes, self.step, self.offset, self.own = volumes, first_step, offset, own

    def __iter__(self) -> Iterator[list[int]]:
        step = self.step
        while True:
            begin = step * self.volumes + self.offset
            yield list(range(begin, begin + self.own))
            step += 1

    def __len__(self) -> int:
        return 2**31
