"""One scan is computed while the next is read and the last is written.

The three steps run in order for each scan, and each in a thread of its own, so that results do not
depend on what else is under way. What the scans in hand need together is bounded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.files import OutputError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.memory import estimate_bytes, free_memory
from screener_nnu.preprocessing.reading import Source, read_size

logger = logging.getLogger(__name__)
Scan = TypeVar("Scan")
Result = TypeVar("Result")
Step = TypeVar("Step")

# Measured peak from reading to writing, per voxel of the file: 13, when the plan's grid is coarse.
_BYTES_PER_VOXEL = 16
# With the libraries, a run over many scans then stays below 8 GB.
_LARGEST_BUDGET = 6_000_000_000
_USABLE = 0.8
# torch's allocator on a processor raises a plain RuntimeError.
_MEMORY_WORDS = ("can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Outcome:
    """What became of a scan; `reason` says why it was skipped, and is empty when it was not."""

    case: str
    reason: str = ""


@dataclass(frozen=True)
class Pipeline(Generic[Scan, Result]):
    """Reads, computes and writes scans, one of each at a time.

    Attributes:
        read: case name and source to a scan; in a thread.
        compute: scan to a result; in the calling thread.
        write: takes case name, source, scan and result; in a thread.
        need: bytes that a scan takes from reading to writing.
        budget: bytes that scans in hand may take together. One scan alone may take more.
    """

    read: Callable[[str, Source], Scan]
    compute: Callable[[Scan], Result]
    write: Callable[[str, Source, Scan, Result], None]
    need: Callable[[Source], int]
    budget: int

    def run(self, cases: Mapping[str, Source]) -> Iterator[Outcome]:
        """Carries out all steps and tells of each scan as soon as it is done with.

        An error or a lack of memory costs one scan; Ctrl-C ends the run once the file that is
        being written is whole.

        Raises:
            OutputError: a file cannot be written, as no other could be.
        """
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            queue = list(cases.items())
            ahead: Future[Scan] | None = None
            last: _Written | None = None
            for number, (case, path) in enumerate(queue):
                if ahead is None:
                    if last and last.need + self.need(path) > self.budget:
                        yield last.outcome()
                        last = None
                    ahead = reader.submit(self.read, case, path)
                scan, reason = attempt(ahead.result)
                ahead = None
                if number + 1 < len(queue) and self._fits(path, queue[number + 1][1], last):
                    ahead = reader.submit(self.read, *queue[number + 1])
                result = None
                if scan is not None:
                    result, reason = attempt(partial(self.compute, scan))
                if last:
                    yield last.outcome()
                    last = None
                if scan is None or result is None:
                    yield Outcome(case, reason)
                    continue
                future = writer.submit(self.write, case, path, scan, result)
                last = _Written(case, future, self.need(path))
                del scan, result
            if last:
                yield last.outcome()

    def _fits(self, now: Source, following: Source, last: _Written | None) -> bool:
        """Whether the next scan may be read beside the present one and the last one."""
        unwritten = last.need if last and not last.future.done() else 0
        return self.need(now) + self.need(following) + unwritten <= self.budget


@dataclass(frozen=True)
class _Written:
    case: str
    future: Future[None]
    need: int

    def outcome(self) -> Outcome:
        """Waits for the file."""
        return Outcome(self.case, attempt(self.future.result)[1])


def attempt(step: Callable[[], Step]) -> tuple[Step | None, str]:
    """What a step gives, or None and why this scan cannot be used.

    Raises:
        OutputError: a file cannot be written; the next scan would fare no better.
    """
    try:
        return step(), ""
    except OutputError:
        raise
    except Exception as error:
        reason = _reason(error)
        # Its frames hold the scan's arrays, and the future that holds the error: a circle.
        error.__traceback__ = None
        return None, reason


def _reason(error: Exception) -> str:
    import torch

    if isinstance(error, CaseError):
        return error.reason
    if isinstance(error, ScreenerError):
        return str(error)
    out_of_memory = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
    if out_of_memory or any(words in str(error) for words in _MEMORY_WORDS):
        return "memory does not suffice for it: free some, or predict it on a larger machine"
    # What an odd file brings about in a library must not cost the other thousands of scans.
    logger.error("an error that was not foreseen", exc_info=error)
    return f"{type(error).__name__}: {error}"


def scan_bytes(path: Source, settings: PreprocessingSettings, extra: int = 0) -> int:
    """Memory that a scan takes from reading to writing, from its header.

    Args:
        path: where it lies.
        settings: of its preprocessing.
        extra: bytes a voxel that are needed for what is made of the map.
    """
    voxels = read_size(path)[0]
    return max((_BYTES_PER_VOXEL + extra) * voxels, estimate_bytes(path, settings))


def memory_budget() -> int:
    """Bytes that the scans in hand may take together."""
    free = free_memory()
    return _LARGEST_BUDGET if free is None else min(_LARGEST_BUDGET, int(_USABLE * free))
