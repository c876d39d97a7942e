"""Which files of a folder are ours; all others in it are never replaced or removed.

A folder that a person names may hold files of theirs. So every file that is written there is
recorded first, by name and content, in the hidden folder `.screener_files`. A file that the record
does not know, or that somebody has changed since, belongs to the person.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from uuid import uuid4

from screener_nnu.errors import ScreenerError

RECORDS = ".screener_files"
# A gzip file ends in a checksum of all of it, and a zip in those of its members.
_END = 1 << 16
# Says nothing of the machine: folders are passed on.
_process = uuid4().hex
_owned: dict[Path, OwnedFolder] = {}


class OwnedFolder:
    """The record of our files in one folder and those below it.

    Each process writes a file of its own, so that several can work in one folder of a network file
    system. Names and contents are only ever added: an older content of ours is still ours. What has
    the recorded size and time is not read again.

    Args:
        folder: the folder; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        """Reads what earlier processes have recorded."""
        self.folder = Path(os.path.abspath(folder))
        self._lock = Lock()
        self._known: dict[str, set[str]] = {}
        self._stamps: dict[str, list[int]] = {}
        self._lengths: dict[str, int] = {}
        self._read()

    @property
    def is_new(self) -> bool:
        """Whether nothing has been recorded yet."""
        return not self._known

    def foreign(self, paths: Iterable[Path]) -> list[Path]:
        """Those of some paths where a file lies that is not ours."""
        suspects = [path for path in paths if os.path.lexists(path) and not self._knows(path)]
        if suspects:
            with self._lock:
                self._read()  # another process may have written it
        return [path for path in suspects if not self._knows(path)]

    def refuse_foreign(self, paths: Iterable[Path]) -> None:
        """Refuses to touch files that are not ours.

        Raises:
            ScreenerError: there is one; the message names it and the way out.
        """
        found = self.foreign(paths)
        if found:
            raise ScreenerError(not_ours(found))

    def adopt(self, paths: Iterable[Path]) -> None:
        """Takes files as ours that a version without this record has written.

        Args:
            paths: files that something else of ours vouches for; those that are not there are
                passed over. Nothing is adopted once there is a record.
        """
        if self.is_new:
            for path in [path for path in paths if path.is_file() and not path.is_symlink()]:
                self.record(path)

    def record(self, path: Path, content: Path | None = None) -> None:
        """Notes that a file is ours, before it takes its place.

        Args:
            path: of the file.
            content: where its content lies now; by default in its place.
        """
        name, identity = self._name(path), content_identity(content or path)
        stamp = _stamp(content or path)
        with self._lock:
            if identity in self._known.get(name, ()) and self._stamps.get(name) == stamp:
                return
            self._note(name, identity, stamp)
            records = self.folder / RECORDS
            records.mkdir(parents=True, exist_ok=True)
            file = records / f"{_process}.jsonl"
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([name, identity, stamp]) + "\n")
                stream.flush()
                os.fsync(stream.fileno())

    def _name(self, path: Path) -> str:
        return os.path.relpath(os.path.abspath(path), self.folder)

    def _note(self, name: str, identity: str, stamp: list[int]) -> None:
        self._known.setdefault(name, set()).add(identity)
        self._stamps[name] = stamp

    def _knows(self, path: Path) -> bool:
        """Whether a file is recorded with the content that it has; a link never is."""
        name = self._name(path)
        known = self._known.get(name)
        if not known or path.is_symlink() or not path.is_file():
            return False
        if _stamp(path) == self._stamps[name]:
            return True  # without reading it: there may be 100,000 of them
        identity = content_identity(path)
        return bool(identity) and identity in known

    def _read(self) -> None:
        for file in (self.folder / RECORDS).glob("*.jsonl"):
            length = file.stat().st_size
            if self._lengths.get(file.name) == length:
                continue  # each file of a person would have all of them read again
            self._lengths[file.name] = length
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    name, identity, stamp = json.loads(line)
                except (ValueError, TypeError):  # the line that a kill cut off
                    continue
                self._note(str(name), str(identity), stamp)


def _stamp(path: Path) -> list[int]:
    """Size (bytes) and time of the last change (ns); moving a file into place changes neither."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def own_folder(folder: Path) -> OwnedFolder:
    """Puts a folder under the rule: from now on this process replaces only its own files there.

    `files.replacing` and `files.remove` keep to it. Nothing is written yet.

    Raises:
        ScreenerError: nothing can be written there.
    """
    place = Path(os.path.abspath(folder))
    if place not in _owned:
        there = next(parent for parent in (place, *place.parents) if os.path.lexists(parent))
        try:
            with TemporaryFile(dir=there):
                pass
        except OSError as error:
            raise ScreenerError(
                f"{place} cannot hold the output ({there}: {error.strerror or error}): give "
                "another folder, or see to its rights"
            ) from error
        _owned[place] = OwnedFolder(place)
    return _owned[place]


def foreign_files(paths: Iterable[Path]) -> list[Path]:
    """Those of some paths where a file lies that is not ours, in a folder under the rule."""
    found = []
    for path in paths:
        owner = owner_of(path)
        found += owner.foreign([path]) if owner is not None else []
    return found


def owned_folders() -> tuple[Path, ...]:
    """The folders under the rule, for processes that work for this one."""
    return tuple(_owned)


def owner_of(path: Path) -> OwnedFolder | None:
    """The folder under the rule that a path lies in; the innermost one of several."""
    parents = Path(os.path.abspath(path)).parents
    return next((_owned[parent] for parent in parents if parent in _owned), None)


def content_identity(path: Path) -> str:
    """A hash of length, beginning and end of a file; empty where it cannot be read."""
    digest = hashlib.sha256()
    if not path.is_file():  # to open a pipe is to wait for its other end
        return ""
    try:
        with path.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            digest.update(f"{length} ".encode())
            for first in (0, max(length - _END, 0)):
                stream.seek(first)
                digest.update(stream.read(_END))
    except OSError:
        return ""
    return digest.hexdigest()[:16]


def not_ours(paths: list[Path]) -> str:
    """The sentence that says which files stand in the way, and what to do."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    are = "are" if more else "is"
    return (
        f"{os.path.abspath(paths[0])}{more} {are} not ours, or changed since we wrote it, and "
        "would be replaced: move it away, or give another output (-o)"
    )
