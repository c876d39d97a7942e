"""One process at a time does what a lock guards; a killed one leaves none behind."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from screener_nnu.errors import BusyError, ScreenerError

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What network file systems without locks answer: their runs go on side by side."""


@contextmanager
def locked(path: Path, variable: str, busy: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Holds the lock of a file, whose folder is made.

    Args:
        path: the file of the lock; it stays.
        variable: the environment variable that names another place, for the error.
        busy: called when another process holds it; unless it raises, that process is waited for.

    Raises:
        ScreenerError: nothing can be written there.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            busy()
            lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise ScreenerError(
                f"{path.absolute()} cannot be written ({error.strerror or error}): see to the "
                f"rights and the free space of that folder, or name another one in {variable}"
            ) from error
        logger.debug("%s: no locks on this file system", path)
    try:
        yield
    finally:
        lock.release()


def one_after_another(path: Path, variable: str, doing: str) -> AbstractContextManager[None]:
    """Holds the lock of a file; another process that holds it is waited for.

    Args:
        path: the file of the lock.
        variable: as of `locked`.
        doing: what the other one does, for the message.
    """
    return locked(path, variable, lambda: logger.info("another run is %s: waiting for it", doing))


def only_one(path: Path, variable: str, doing: str) -> AbstractContextManager[None]:
    """Holds the lock of a file; another process that holds it is not waited for.

    Args:
        path: the file of the lock.
        variable: as of `locked`.
        doing: what the other one does, for the message.

    Raises:
        BusyError: another process holds it.
        ScreenerError: nothing can be written there.
    """

    def refuse() -> None:
        raise BusyError(f"another process is {doing}: wait for it or stop it")

    return locked(path, variable, refuse)
