"""Files that appear whole or not at all, and their hashes; light enough for every process."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.ownership import owner_of

_CHUNK = 1 << 20
#: Of what is being written; a killed run leaves it behind.
TEMPORARY_ENDING = ".tmp"


class DiskFullError(ScreenerError):
    """No space is left for a file, and so for no other; the message names it and the way out."""

    def __init__(self, path: Path, needed: int | None = None) -> None:
        """Builds the message.

        Args:
            path: the file.
            needed: bytes that are needed for what is still to be written, where it is known.
        """
        self.path, self.needed = path, needed
        much = "" if needed is None else f" (about {needed / 1e9:.1f} GB are needed)"
        super().__init__(
            f"no space left to write {os.path.abspath(path)}{much}; free some and run the same "
            "command again"
        )

    def __reduce__(self) -> tuple[type, tuple[Path, int | None]]:
        """Lets the error cross a process border."""
        return type(self), (self.path, self.needed)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary file that takes the place of another when the block ends well.

    A reader sees the old file or the whole new one, also after a power failure. In a folder under
    the rule of `ownership`, a file that is not ours is not replaced.

    Raises:
        DiskFullError: no space is left; the old file stays.
        ScreenerError: the old file is not ours.
    """
    owner = owner_of(path)
    if owner is not None:
        owner.refuse_foreign([path])
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_ENDING}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("r+b") as stream:
            os.fsync(stream.fileno())
        if owner is not None:
            owner.record(path, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        if disk_is_full(error):
            raise DiskFullError(path) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Removes a file if it is there; in a folder under the rule of `ownership`, only our own.

    Raises:
        ScreenerError: it is not ours.
    """
    owner = owner_of(path)
    if owner is not None:
        owner.refuse_foreign([path])
    path.unlink(missing_ok=True)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error of a file system or of torch says that no space is left."""
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
