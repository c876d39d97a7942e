"""One run at a time plans a data set; others wait and find its work done."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

from screener_nnu.errors import ScreenerError

logger = logging.getLogger(__name__)


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Waits for another run that reads or plans the same data set; a killed one leaves no lock.

    Raises:
        ScreenerError: nothing can be written into the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".screener_planning.lock").open("w")
    except OSError as error:
        raise ScreenerError(
            f"{folder} cannot be written ({error.strerror or error}): see to its rights, or name "
            "another place in nnUNet_preprocessed"
        ) from error
    with lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.EACCES):
                    logger.info("another run is planning %s: waiting for it", folder.name)
                # Some network file systems have no locks: their runs go on side by side.
                with suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
        yield
