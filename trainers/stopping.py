"""A training ends at its next step when it is asked to, and keeps what it has.

Schedulers send SIGTERM some time before they take a machine away: SLURM at the time limit of a job
or before a more urgent one, a cloud before it takes a spot machine back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from screener_nnu.errors import StoppedError

# A process is at most two steps ahead of another: see `StopRequest.due`.
_AHEAD = 3
_KEY = "last step"
_store: dist.Store | None = None


class StopRequest:
    """Whether a training is to end, and after which step: the same one in all its processes.

    Attributes:
        received: a request has come.
        can_wait: a step is under way, which is finished first. Anything else is done again by the
            next start, and left at once.
    """

    def __init__(self) -> None:
        """Starts with no such request."""
        self.received = self.can_wait = False
        self._told = False
        self._last: int | None = None
        self._previous: torch.cuda.Event | None = None

    def receive(self) -> None:
        """Takes a request.

        Raises:
            StoppedError: no step is under way.
        """
        self.received = True
        if not self.can_wait:
            raise StoppedError("it was asked to end (SIGTERM); the same command goes on")

    def due(self, step: int) -> bool:
        """Whether the training ends now, between two steps.

        The processes of a training must end after the same step, or one would wait for the others
        for ever. The first that is asked to end names a step which none has reached: gradients of a
        step need all processes, and on a GPU none is asked for a step before the last but one is
        computed.

        Args:
            step: number of finished steps.
        """
        if _store is None:
            return self.received
        if torch.cuda.is_available():
            self._wait_for_step_before()
        if self.received and not self._told:
            _store.compare_set(_KEY, "", str(step + _AHEAD))
            self._told = True
        if self._last is None and _store.check([_KEY]):
            self._last = int(_store.get(_KEY))
        return self._last is not None and step >= self._last

    def _wait_for_step_before(self) -> None:
        """Until the last step but one is computed; the last one may still be under way."""
        event = torch.cuda.Event()
        event.record()
        if self._previous is not None:
            self._previous.synchronize()
        self._previous = event


@contextmanager
def agreeing_by(store: dist.Store) -> Iterator[None]:
    """Lets the processes of a training agree on their last step through a store of theirs."""
    global _store
    _store = store
    try:
        yield
    finally:
        _store = None


@contextmanager
def stopping_on_sigterm() -> Iterator[StopRequest]:
    """Turns SIGTERM into a request, as long as the block lasts."""
    request = StopRequest()
    with _on_sigterm(request.receive):
        yield request


@contextmanager
def sigterm_passed_on(processes: Sequence[Any]) -> Iterator[None]:
    """Sends SIGTERM on to other processes, as long as the block lasts."""

    def pass_on() -> None:
        for process in processes:
            process.terminate()

    with _on_sigterm(pass_on):
        yield


@contextmanager
def _on_sigterm(react: Callable[[], None]) -> Iterator[None]:
    """Only the main thread may say so; in another one SIGTERM stays what it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: react())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
