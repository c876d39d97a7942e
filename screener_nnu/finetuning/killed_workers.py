"""What nnU-Net's work ends of, a killed background process or a full disk, in a sentence.

nnU-Net itself waits for ever for the result of a process that was killed while it wrote a
prediction or a figure, and says of others that they are "6 feet under".
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.files import OutputError, disk_is_full

# Shorter than it takes to start a process and to use up memory (s).
_PERIOD = 0.1
_DIED = ("background worker", "6 feet under", "background process")
_NO_MEMORY = "out of memory"
# Blosc2 does not say why it cannot write; below so many bytes, it is for want of space.
_TOO_LITTLE = 8 << 20


@contextmanager
def named_when_killed(work: str, folder: Path) -> Iterator[None]:
    """Turns the death of a background process, and a full device or disk, into a sentence.

    Args:
        work: what the message calls the block, for instance `the training in FOLDER`.
        folder: that it writes to.

    Raises:
        OutputError: the disk is full.
        ScreenerError: a process that was started in the block was killed, or the memory of the
            device ran out.
    """
    watch = _Watch()
    try:
        with watch.running():
            yield
    except KeyboardInterrupt:
        if not watch.found:
            raise
        raise ScreenerError(_killed(work)) from None
    except OSError as error:
        if disk_is_full(error):
            raise OutputError.of(folder, error) from error
        raise
    except RuntimeError as error:
        text = str(error)
        if disk_is_full(error) or _little_is_left(folder):
            raise OutputError.of(folder, OSError(errno.ENOSPC, text)) from error
        if any(word in text for word in _DIED):
            raise ScreenerError(_killed(work)) from error
        if _NO_MEMORY in text:
            reason = text.splitlines()[0]
            raise ScreenerError(
                f"{work} was stopped, since the device has too little memory ({reason}): end other "
                "programs on it, take a larger one, or plan the source with less --memory_gb"
            ) from error
        raise


def _little_is_left(folder: Path) -> bool:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(place).free < _TOO_LITTLE


class _Watch:
    """A thread that interrupts the main thread when a child process was killed."""

    def __init__(self) -> None:
        self.found = False
        self._end = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        # Elsewhere, processes are not killed for memory, or no thread can be interrupted.
        if os.name == "nt" or threading.current_thread() is not threading.main_thread():
            yield
            return
        # Scripts start what they put into the background with interrupts ignored.
        before = signal.getsignal(signal.SIGINT)
        if before is signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
            if before is signal.SIG_IGN:
                signal.signal(signal.SIGINT, before)

    def _look(self) -> None:
        children: set[BaseProcess] = set()
        while True:
            # Kept, for a pool forgets a process at once and starts another in its place.
            children.update(multiprocessing.active_children())
            ended = {child for child in children if child.exitcode is not None}
            # Whoever ends a pool in good order terminates its processes, and does not kill them.
            if any(child.exitcode == -signal.SIGKILL for child in ended):
                self.found = True
                # A real signal: it ends waiting for a lock, too.
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return
            children -= ended
            if self._end.wait(_PERIOD):
                return


def _killed(work: str) -> str:
    return (
        f"{work} was stopped, since a background process of nnU-Net was killed, most likely "
        "because memory ran out (an error of its own would stand above): run the same command "
        "again with fewer processes (-np; nnUNet_n_proc_DA for those of augmentation) or more "
        "memory"
    )
