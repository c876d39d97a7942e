"""Files of a folder tree, also inside of zips, which are read in place and never unpacked."""

from __future__ import annotations

import io
import os
import struct
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from screener_nnu.errors import ScreenerError

# Beyond these a zip is a mistake or an attack, and no export of a scanner.
MAX_MEMBERS = 1_000_000
MAX_ZIP_BYTES = 512 * 2**30
MAX_MEMBER_BYTES = 8 * 2**30
# Deflate turns at most some 1032 bytes into one; scans shrink two- or threefold.
MAX_RATIO = 200
# Both are unpacked in pieces of bounded size, unlike the other methods.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# First element of a file without the preamble of 128 bytes that DICOM asks for.
_FIRST_GROUPS = (0x0002, 0x0008)
_LAST_FIRST_ELEMENT = 0x0018


@dataclass(frozen=True, slots=True, init=False)
class FileRef:
    """A file on the disk, or a member of a zip on the disk.

    There may be millions: text takes a fifth of a path, and files of one folder share its name.

    Attributes:
        folder: of the file or of the zip.
        file_name: of the file or of the zip.
        member: name within the zip; it is never used as a path.
    """

    folder: str
    file_name: str
    member: str | None

    def __init__(self, path: Path, member: str | None = None) -> None:
        """From the path of the file or of the zip."""
        object.__setattr__(self, "folder", sys.intern(str(path.parent)))
        name = path.name if member is None else sys.intern(path.name)
        object.__setattr__(self, "file_name", name)
        object.__setattr__(self, "member", member)

    @property
    def path(self) -> Path:
        """Of the file or of the zip."""
        return Path(self.folder, self.file_name)

    @property
    def name(self) -> str:
        """File name, or the whole name within the zip."""
        return self.file_name if self.member is None else self.member

    @property
    def parent(self) -> tuple[str, ...]:
        """Names of the folders that hold the file; a zip counts as a folder of its stem."""
        if self.member is None:
            return self.path.parent.parts
        inner = self.member.replace("\\", "/").split("/")[:-1]
        return (*self.path.parent.parts, self.path.stem, *inner)


class Opener:
    """Opens files one after the other; a context manager.

    The last zip of a process stays open also between openers, for its directory may list a million
    files and would have to be read for each series; `close_zips` closes it.
    """

    def __init__(self) -> None:
        """Nothing is open yet."""
        self._path: Path | None = None
        self._archive: zipfile.ZipFile | None = None

    def __enter__(self) -> Opener:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the zip."""
        self._archive = self._path = None

    def open(self, file: FileRef) -> BinaryIO:
        """The content as a stream that can be sought; the caller closes it.

        Raises:
            OSError: the file cannot be opened.
            zipfile.BadZipFile: the zip or the member is damaged.
        """
        if file.member is None:
            return file.path.open("rb")
        if self._path != file.path or self._archive is None:
            self.__exit__(None, None, None)
            self._archive, self._path = _archive(file.path), file.path
        return io.BufferedReader(self._archive.open(file.member))  # type: ignore[type-var]


def close_zips() -> None:
    """Closes the zip that the openers of this process keep."""
    _kept_archive.cache_clear()


def _archive(path: Path) -> zipfile.ZipFile:
    state = path.stat()
    # A process that was forked must not share the place in the file with its parent.
    return _kept_archive(path, state.st_mtime_ns, state.st_size, os.getpid())


@lru_cache(maxsize=1)
def _kept_archive(path: Path, changed: int, size: int, process: int) -> zipfile.ZipFile:
    # Closed when it is neither kept nor used any more.
    return zipfile.ZipFile(path)


def is_zip(path: Path) -> bool:
    """Whether a file is a zip, by its first bytes; by its name when it cannot be opened."""
    # Unlike the method of a path, this does not raise in a folder that may not be entered.
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return path.name.lower().endswith(".zip")


def is_dicom(path: Path) -> bool:
    """Whether a path is a DICOM file, by its first bytes."""
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as stream:
            return looks_like_dicom(stream)
    except OSError:
        return False


def looks_like_dicom(stream: BinaryIO) -> bool:
    """Whether a stream begins as a DICOM file does, with or without its preamble."""
    start = stream.read(132)
    stream.seek(0)
    if start[128:] == b"DICM":
        return True
    if len(start) < 132:
        return False
    group, element = struct.unpack("<HH", start[:4])
    return group in _FIRST_GROUPS and element <= _LAST_FIRST_ELEMENT


class ZipError(ScreenerError):
    """A zip that cannot be read or is not safe to read.

    Args:
        path: of the zip.
        reason: what is wrong and what to do; without the name of the zip.
    """

    def __init__(self, path: Path, reason: str) -> None:
        """Builds the message."""
        super().__init__(f"the zip {path.name} is not read: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Path, str]]:
        """Lets the error cross a process border."""
        return type(self), (self.path, self.reason)


def list_files(
    source: Path, bad_zips: list[ZipError] | None = None, bad_folders: list[Path] | None = None
) -> Iterator[FileRef]:
    """All files of a folder tree or of a zip, in an order that does not depend on the disk.

    Hidden files and folders are left out, links to folders are not followed, and a zip in a zip is
    not opened.

    Args:
        source: folder, zip or file.
        bad_zips: gets the zips within a folder that are not read; without it, the first is raised.
        bad_folders: gets the folders that cannot be listed; without it, the first is raised.

    Raises:
        ZipError: the source, or a zip in it, is not read.
        ScreenerError: a folder cannot be listed.
    """
    if os.path.isfile(source):
        yield from _members(source) if is_zip(source) else [FileRef(source)]
        return
    for path in _files(source, bad_folders):
        if not (path.name.lower().endswith(".zip") and is_zip(path)):
            yield FileRef(path)
            continue
        try:
            yield from _members(path)
        except ZipError as error:
            if bad_zips is None:
                raise
            bad_zips.append(error)


def _files(source: Path, bad_folders: list[Path] | None) -> Iterator[Path]:
    def note(error: OSError) -> None:
        if bad_folders is None:
            raise ScreenerError(
                f"the folder {error.filename} cannot be read ({error.strerror}): see to its rights"
            ) from error
        bad_folders.append(Path(str(error.filename)))

    for folder, folders, files in os.walk(source, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder) / name
            if not name.startswith(".") and os.path.isfile(path):
                yield path


def _members(path: Path) -> list[FileRef]:
    """Files of a zip after all of them were checked: nothing is unpacked before."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
    except OSError as error:
        raise ZipError(
            path, f"it cannot be opened ({error.strerror or error}); see to its rights or copy it"
        ) from error
    # A damaged directory of a zip raises nearly anything, from BadZipFile to struct.error.
    except Exception as error:
        raise ZipError(path, "it is damaged or cut off; copy it again") from error
    reason = _danger(members)
    if reason:
        raise ZipError(path, reason)
    names = sorted(member.filename for member in members)
    return [FileRef(path, name) for name in names if not _is_hidden(name)]


def _is_hidden(member: str) -> bool:
    """Whether a member is a file of the system that packed it."""
    parts = member.replace("\\", "/").split("/")
    return parts[-1].startswith(".") or "__MACOSX" in parts


def _danger(members: list[zipfile.ZipInfo]) -> str:
    """Why a zip should not be read; empty when nothing speaks against it."""
    if len(members) > MAX_MEMBERS:
        return f"it has {len(members)} members, more than {MAX_MEMBERS}; split it"
    if len({m.filename for m in members}) < len(members):
        return "two members have the same name; unpack it and look at them"
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            return "its members are encrypted; unpack it with its password"
        if member.compress_type not in _METHODS:
            return "it is compressed by another method than deflate; unpack it"
        if member.file_size > MAX_MEMBER_BYTES:
            return f"a member claims {member.file_size / 2**30:.0f} GB; unpack it if you trust it"
        if member.file_size > MAX_RATIO * max(member.compress_size, 2**16):
            return (
                f"a member claims to unpack to {member.file_size / 2**20:.0f} MB, over "
                f"{MAX_RATIO} times its size; unpack it if you trust it"
            )
    total = sum(member.file_size for member in members)
    if total > MAX_ZIP_BYTES:
        return f"it claims {total / 2**30:.0f} GB in all; unpack it if you trust it"
    return ""
