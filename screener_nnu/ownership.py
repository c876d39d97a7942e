"""Which files of a folder are ours; all others in it are never replaced or removed.

A folder that a person names may hold files of theirs. So every file that is written there is
recorded first, by name and content, in the hidden folder `.screener_files`. A file that the record
does not know, or that somebody has changed since, belongs to the person.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from screener_nnu.errors import ScreenerError

RECORDS = ".screener_files"
# A gzip file ends in a checksum of all of it, and a zip in those of its members.
_END = 1 << 16
_owned: dict[Path, OwnedFolder] = {}


class OwnedFolder:
    """The record of our files in one folder and those below it.

    Each process writes a file of its own, so that several can work in one folder of a network file
    system. Names and contents are only ever added: an older content of ours is still ours.

    Args:
        folder: the folder; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        """Reads what earlier processes have recorded."""
        self.folder = Path(os.path.abspath(folder))
        self._lock = Lock()
        self._known: dict[str, set[str]] = {}
        self._read()

    @property
    def is_new(self) -> bool:
        """Whether nothing has been recorded yet."""
        return not self._known

    def foreign(self, paths: Iterable[Path]) -> list[Path]:
        """Those of some paths where a file lies that is not ours."""
        suspects = [path for path in paths if os.path.lexists(path) and not self._knows(path)]
        if suspects:
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

    def record(self, path: Path, content: Path | None = None) -> None:
        """Notes that a file is ours, before it takes its place.

        Args:
            path: of the file.
            content: where its content lies now; by default in its place.
        """
        name, identity = self._name(path), content_identity(content or path)
        with self._lock:
            if identity in self._known.get(name, ()):
                return
            self._known.setdefault(name, set()).add(identity)
            records = self.folder / RECORDS
            records.mkdir(parents=True, exist_ok=True)
            file = records / f"{socket.gethostname()}_{os.getpid()}.jsonl"
            with file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps([name, identity]) + "\n")
                stream.flush()
                os.fsync(stream.fileno())

    def _name(self, path: Path) -> str:
        return os.path.relpath(os.path.abspath(path), self.folder)

    def _knows(self, path: Path) -> bool:
        """Whether a file is recorded with the content that it has; a link never is."""
        known = self._known.get(self._name(path))
        if not known or path.is_symlink() or not path.is_file():
            return False
        identity = content_identity(path)
        return bool(identity) and identity in known

    def _read(self) -> None:
        for file in (self.folder / RECORDS).glob("*.jsonl"):
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    name, identity = json.loads(line)
                except (ValueError, TypeError):  # the line that a kill cut off
                    continue
                self._known.setdefault(str(name), set()).add(str(identity))


def own_folder(folder: Path) -> OwnedFolder:
    """Puts a folder under the rule: from now on this process replaces only its own files there.

    `files.replacing` and `files.remove` keep to it.
    """
    found = OwnedFolder(folder)
    return _owned.setdefault(found.folder, found)


def owner_of(path: Path) -> OwnedFolder | None:
    """The folder under the rule that a path lies in; the innermost one of several."""
    parents = Path(os.path.abspath(path)).parents
    return next((_owned[parent] for parent in parents if parent in _owned), None)


def content_identity(path: Path) -> str:
    """A hash of length, beginning and end of a file; empty where it cannot be read."""
    digest = hashlib.sha256()
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
        f"{paths[0]}{more} {are} not ours, or changed since we wrote it, and would be replaced: "
        "move it, or give another output (-o)"
    )
