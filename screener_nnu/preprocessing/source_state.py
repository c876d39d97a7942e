"""What the file of a scan was when it was read: a later run sees whether it was replaced."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from screener_nnu.dicom.files import list_files
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.files import file_sha256
from screener_nnu.preprocessing.modality import CT
from screener_nnu.preprocessing.reading import RawImage, read_image

# Size (bytes), time (ns) and listing: what is known without reading.
_Stamp = tuple[int, int, str]


@dataclass(frozen=True)
class SourceState:
    """State of an image file, or of a folder of DICOM files.

    Attributes:
        size: bytes, of all files of a folder.
        changed_ns: when it was modified (ns since the epoch); of a folder, its latest file.
        listing: hash of names, sizes and times of a folder's files; empty for a file.
        sha256: hash of the content; of a folder, of names and contents.
    """

    size: int
    changed_ns: int
    listing: str
    sha256: str

    @classmethod
    def of(cls, path: Path) -> SourceState:
        """The present state; reads everything.

        Raises:
            OSError: it cannot be read.
        """
        # The time first: what is written during the reading then has another one.
        stamp = _stamp(path)
        try:
            return cls(*stamp, _content(path))
        except ScreenerError as error:
            raise OSError(str(error)) from error

    @classmethod
    def from_dict(cls, values: Any) -> SourceState | None:
        """Reads what `to_dict` wrote; None for anything else, as an earlier version left it."""
        kinds = {
            field.name: str if field.name in ("listing", "sha256") else int for field in fields(cls)
        }
        if not isinstance(values, dict) or set(values) != set(kinds):
            return None
        if not all(isinstance(values[name], kind) for name, kind in kinds.items()):
            return None
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    def is_untouched(self, path: Path) -> bool:
        """Whether size and time are those of now, which costs one `stat` of a file.

        Raises:
            OSError: it cannot be looked at.
        """
        return _stamp(path) == (self.size, self.changed_ns, self.listing)


def state_if_readable(path: Path) -> SourceState | None:
    """The present state; None where it cannot be read."""
    try:
        return SourceState.of(path)
    except OSError:
        return None


def read_with_state(path: Path, case: str, modality: str = CT) -> tuple[RawImage, SourceState]:
    """A scan and the state of the very file that it was read from.

    Raises:
        CaseError: it cannot be used, or was written to meanwhile.
    """
    try:
        before = _stamp(path)
        raw = read_image(path, case, modality)
        # Read a moment ago, so that the system has it in memory.
        state = SourceState.of(path)
    except OSError as error:
        raise CaseError(
            case, f"{path} cannot be read ({error.strerror or error}): see to its rights"
        ) from error
    if before != (state.size, state.changed_ns, state.listing):
        raise CaseError(case, f"{path} changed while it was read: run again when it is complete")
    return raw, state


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        return found.st_size, found.st_mtime_ns, ""
    states = {name: file.stat() for name, file in _files(path).items()}
    entries = [(name, one.st_size, one.st_mtime_ns) for name, one in states.items()]
    return (
        sum(size for _, size, _ in entries),
        max((changed for _, _, changed in entries), default=found.st_mtime_ns),
        hashlib.sha256(json.dumps(entries).encode()).hexdigest(),
    )


def _content(path: Path) -> str:
    if not path.is_dir():
        return file_sha256(path)
    entries = [(name, file_sha256(file)) for name, file in _files(path).items()]
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    """Files of a folder that a DICOM series is looked for in, by their names in it, in order."""
    # A zip in the folder is one file: its members do not count here, nor whether it is read.
    paths = {file.path for file in list_files(folder, bad_zips=[], bad_folders=[])}
    return {os.path.relpath(path, folder): path for path in sorted(paths)}
