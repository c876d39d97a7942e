"""Errors and remarks of pydicom and others without what may hold names of people."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silences warnings and pydicom's log within the block: what it logs, it raises as well."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def describe(error: BaseException) -> str:
    """Type and message of an unexpected error; that of an `OSError` without the file's name."""
    if isinstance(error, OSError):
        return f"{type(error).__name__}: {error.strerror or 'no further reason'}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__
