"""Files that appear whole or not at all, and their hashes; light enough for every process."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from screener_nnu.errors import ScreenerError
from screener_nnu.ownership import owner_of

_CHUNK = 1 << 20
#: Of what is being written; a killed run leaves it behind.
TEMPORARY_ENDING = ".tmp"
#: A file is written within minutes; a younger one may be that of another process.
OLD_SECONDS = 3600.0


class OutputError(ScreenerError):
    """A file cannot be written, and so no other beside it; the message says why and the way out.

    Args:
        path: the file.
        reason: what is in the way.
        way_out: what to do.
    """

    def __init__(self, path: Path, reason: str, way_out: str) -> None:
        """Builds the message."""
        super().__init__(f"{os.path.abspath(path)} cannot be written ({reason}): {way_out}")
        self.path, self.reason, self.way_out = path, reason, way_out

    def __reduce__(self) -> tuple[type, tuple[Path, str, str]]:
        """Lets the error cross a process border."""
        return type(self), (self.path, self.reason, self.way_out)

    @classmethod
    def of(cls, path: Path, error: BaseException, needed: int | None = None) -> OutputError:
        """The error of a file system, or of torch, as one of ours.

        Args:
            path: the file that was to be written.
            error: what was raised.
            needed: bytes that are still to be written, where it is known.
        """
        if disk_is_full(error):
            much = "" if needed is None else f", about {max(needed // 10**6, 1)} MB are needed"
            return cls(path, f"no space left{much}", "free some and run the same command again")
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return cls(path, reason, "see to the rights of that folder, or give another")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary file that takes the place of another when the block ends well.

    A reader sees the old file or the whole new one, also after a power failure. In a folder under
    the rule of `ownership`, a file that is not ours is not replaced.

    Raises:
        OutputError: it cannot be written, for instance because the disk is full; the old file
            stays.
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
    except OSError as error:
        raise OutputError.of(path, error) from error
    except RuntimeError as error:
        if disk_is_full(error):
            raise OutputError.of(path, error) from error
        raise
    finally:
        with suppress(OSError):
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


def refuse_missing(path: Path) -> None:
    """Refuses a path of a person at which there is nothing.

    Raises:
        ScreenerError: it does not exist, or is a link that leads nowhere.
    """
    # Unlike the method of a path, this does not raise where links lead in a circle.
    if os.path.exists(path):
        return
    if path.is_symlink():
        raise ScreenerError(
            f"{path} is a link to {os.readlink(path)}, which is not there: correct the link"
        )
    raise ScreenerError(f"{path} does not exist: correct the path")


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


def remove_half_written(folder: Path, names: str, older: float = 0.0) -> None:
    """Removes what killed runs were writing into a folder.

    Args:
        folder: where; it need not be there.
        names: regular expression of the names that the files would have had.
        older: seconds; younger ones stay, where another process may be writing just now.
    """
    half = re.compile(rf"\.({names})\.\d+{re.escape(TEMPORARY_ENDING)}")
    for path in folder.glob(f".*{TEMPORARY_ENDING}"):
        with suppress(FileNotFoundError):
            if half.fullmatch(path.name) and time.time() - path.stat().st_mtime >= older:
                path.unlink()


def remove_half_written_of(folder: Path, names: Iterable[str]) -> None:
    """Removes what killed runs were writing in place of files of some names, if it is old."""
    remove_half_written(folder, "|".join(map(re.escape, names)), OLD_SECONDS)


def bytes_below(folder: Path) -> int:
    """Bytes of all files in a folder and below; links do not count."""
    found = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
    return sum(path.lstat().st_size for path in found if not path.is_symlink())
