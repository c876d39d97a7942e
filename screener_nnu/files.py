"""Files that appear whole or not at all, and their hashes; light enough for every process."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from screener_nnu.errors import ScreenerError

_CHUNK = 1 << 20


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary file that takes the place of another when the block ends well.

    A reader sees the old file or the whole new one, also after a power failure.

    Raises:
        ScreenerError: the disk is full; the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if _disk_is_full(error):
            raise ScreenerError(
                f"no space left to write {path}; free some and run the same command again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _disk_is_full(error: OSError | RuntimeError) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    # torch reports a full disk as a RuntimeError of its archive writer.
    return "file write failed" in str(error) or "unexpected pos" in str(error)


def file_sha256(path: Path) -> str:
    """Hash of a file of any size.

    Raises:
        ScreenerError: there is no such file.
    """
    if not path.is_file():
        raise ScreenerError(f"no file {path}")
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
