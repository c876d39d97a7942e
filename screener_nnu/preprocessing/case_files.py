"""Prepared scans on disk: three compressed arrays and a marker a case, in one folder.

    <case>_hu.b2nd          int16     HU at the plan's spacing; float16 values of other modalities
    <case>_equalised.b2nd   float16   equalised image at the storage spacing
    <case>_body.b2nd        uint8     body mask at the storage spacing
    <case>.json             frame, settings, versions, bytes, checksums and source; written last

Images of colour pictures have a first axis of three colours, which boxes do not speak of.
A case is finished when its marker exists. Every file appears whole or not at all.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import blosc2
import numpy as np

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import Shape
from screener_nnu.preprocessing.marker import Marker, marker_bytes, with_source
from screener_nnu.preprocessing.modality import Modality, modality_of
from screener_nnu.preprocessing.prepare import Frame, PreparedImage
from screener_nnu.preprocessing.source_state import SourceState

Kind = Literal["hu", "equalised", "body"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Crops have edges of 40 to 128 voxels: chunks of 64 are read whole, blocks of 32 one by one.
_CHUNK = 64
_BLOCK = 32
# Level 5 saves 6 % more and takes seven times as long.
_LEVEL = 1
_AGAIN = "delete it and run screener_plan_and_preprocess again"


def write_case(
    folder: Path, case: str, prepared: PreparedImage, source: SourceState | None = None
) -> int:
    """Writes a case; the marker comes last, so a case that was cut short never looks finished.

    Args:
        folder: of all cases.
        case: its name.
        prepared: what is written.
        source: the scan that it was made from.

    Returns:
        Bytes on disk.

    Raises:
        ScreenerError: a file could not be written, for instance because the disk is full; nothing
            of the case is left then. The next case would fare no better, so it is no `CaseError`.
    """
    arrays: dict[Kind, np.ndarray] = {
        "hu": stored_values(prepared.hu, modality_of(prepared.settings)),
        "equalised": prepared.equalised.astype(np.float16),
        "body": prepared.body.astype(np.uint8),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _marker(folder, case).unlink(missing_ok=True)
        compressed: dict[str, bytes] = {}
        size = 0
        for kind, array in arrays.items():
            compressed[kind] = _compress(array)
            size += _write(_array_file(folder, case, kind), compressed[kind])
        marker = marker_bytes(prepared, compressed, source)
        return size + _write(_marker(folder, case), marker)
    except OSError as error:
        remove_case(folder, case)
        raise _unwritable(folder, case, error) from error


def stored_values(values: np.ndarray, modality: Modality) -> np.ndarray:
    """Values of a modality in the type that they are stored in."""
    if np.issubdtype(modality.stored, np.integer):
        return np.rint(values).astype(modality.stored)
    limits = np.finfo(modality.stored)
    return values.clip(float(limits.min), float(limits.max)).astype(modality.stored)


def add_source(folder: Path, case: str, source: SourceState) -> None:
    """Adds the scan to a marker of an earlier version; its time stays, for maps depend on it.

    Raises:
        ScreenerError: it could not be written.
    """
    marker = _marker(folder, case)
    try:
        _write(marker, with_source(marker.read_bytes(), source), marker.stat().st_mtime_ns)
    except OSError as error:
        raise _unwritable(folder, case, error) from error


def remove_case(folder: Path, case: str) -> None:
    """Removes the four files of a case and what an interrupted write left, the marker first."""
    for file in _files(folder, case):
        file.unlink(missing_ok=True)
        _temporary(file).unlink(missing_ok=True)


def refuse_other_files(folder: Path, cases: Iterable[str]) -> None:
    """Refuses a folder where files of somebody else have the names of cases.

    A folder is ours when a marker is in it, or an array as a killed run leaves it.

    Raises:
        ScreenerError: it is not; the message names a file.
    """
    names = set(os.listdir(folder)) if folder.is_dir() else set()
    taken = [f.name for case in cases for f in _files(folder, case) if f.name in names]
    if taken and not CaseFolder(folder).is_ours():
        raise ScreenerError(
            f"{folder} holds files that are not ours, {taken[0]} among them, and cases would take "
            "their place: move them away, or give the plan another data_identifier"
        )


class CaseFolder:
    """Reads the cases of a folder; small, so that it can be sent to reading processes.

    Args:
        folder: `$nnUNet_preprocessed/<Dataset>/<screener.data_identifier>`.
    """

    def __init__(self, folder: Path) -> None:
        """Remembers the folder."""
        self.folder = folder

    def finished(self) -> list[str]:
        """Names of the finished cases, sorted."""
        if not self.folder.is_dir():
            return []
        names = set(os.listdir(self.folder))
        cases = (n[: -len(".json")] for n in names if n.endswith(".json") and n[0] != ".")
        return sorted(c for c in cases if all(f"{c}_{kind}.b2nd" in names for kind in KINDS))

    def frame(self, case: str) -> Frame:
        """How the grids of a case lie in its input."""
        return Frame.from_dict(self.marker(case).frame)

    def settings(self, case: str) -> dict[str, Any]:
        """The settings a case was made with, as plain values."""
        return self.marker(case).settings

    def changed(self, case: str) -> float:
        """When a case was finished, in seconds since the epoch."""
        file = _marker(self.folder, case)
        try:
            return file.stat().st_mtime
        except OSError as error:
            raise self._unreadable(case, file, error) from error

    def whole_marker(self, case: str) -> Marker | None:
        """The marker of a case whose arrays have the sizes that it states; None for any other."""
        try:
            marker = self.marker(case)
            found = {k: _array_file(self.folder, case, k).stat().st_size for k in KINDS}
        except (CaseError, OSError):
            return None
        return marker if marker.sizes == found else None

    def has_changed(self, case: str, marker: Marker) -> bool:
        """Whether an array is another one than the marker knows; all of them are read."""
        files = ((_array_file(self.folder, case, k), marker.checksums.get(k)) for k in KINDS)
        return any(known not in (None, zlib.crc32(file.read_bytes())) for file, known in files)

    def is_ours(self) -> bool:
        """Whether anything in the folder, a marker or an array, was written by us."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        markers = (name[: -len(".json")] for name in names if name.endswith(".json"))
        if any(map(self._has_marker, markers)):
            return True
        arrays = (
            (n[: -len(f"_{k}.b2nd")], k) for n in names for k in KINDS if n.endswith(f"_{k}.b2nd")
        )
        return any(self._has_array(case, kind) for case, kind in arrays)

    def _has_marker(self, case: str) -> bool:
        try:
            self.marker(case)
        except CaseError:
            return False
        return True

    def _has_array(self, case: str, kind: Kind) -> bool:
        try:
            self._open(case, kind)
        except CaseError:
            return False
        return True

    def shape(self, case: str, kind: Kind) -> Shape:
        """Voxels of an array, (z, y, x)."""
        z, y, x = self._open(case, kind).shape[-3:]
        return z, y, x

    def read(self, case: str, kind: Kind) -> np.ndarray:
        """A whole array in its stored type, (z, y, x), of colour images (3, z, y, x)."""
        shape = self.shape(case, kind)
        return self.read_box(case, kind, (0, 0, 0), shape)

    def read_box(self, case: str, kind: Kind, start: Shape, stop: Shape) -> np.ndarray:
        """The voxels `start` to `stop` (exclusive) of an array, reading only what they need.

        Raises:
            CaseError: the file is missing or damaged.
            ValueError: the box is empty or not inside the array.
        """
        array = self._open(case, kind)
        bounds = list(zip(start, stop, array.shape[-3:], strict=True))
        if not all(0 <= first < last <= n for first, last, n in bounds):
            raise ValueError(f"box {start} to {stop} is not inside {case} {array.shape}")
        try:
            colours = (slice(None),) * (array.ndim - 3)
            box = (*colours, *(slice(first, last) for first, last, _ in bounds))
            return np.asarray(array[box])
        except Exception as error:  # blosc2 raises many types for a damaged file
            raise self._unreadable(case, _array_file(self.folder, case, kind), error) from error

    def _open(self, case: str, kind: Kind) -> Any:
        file = _array_file(self.folder, case, kind)
        # One thread: readers run in processes of their own. Windows cannot map the file.
        options: dict[str, Any] = {} if os.name == "nt" else {"mmap_mode": "r"}
        blosc2.set_nthreads(1)
        try:
            return blosc2.open(str(file), mode="r", dparams={"nthreads": 1}, **options)
        except Exception as error:
            raise self._unreadable(case, file, error) from error

    def marker(self, case: str) -> Marker:
        """What the marker of a case says.

        Raises:
            CaseError: it is missing or damaged.
        """
        file = _marker(self.folder, case)
        try:
            return Marker.read(file)
        except (OSError, ValueError) as error:
            raise self._unreadable(case, file, error) from error

    @staticmethod
    def _unreadable(case: str, file: Path, error: Exception) -> CaseError:
        return CaseError(case, f"{file} is missing or damaged ({error}): {_AGAIN}")


def _array_file(folder: Path, case: str, kind: Kind) -> Path:
    return folder / f"{case}_{kind}.b2nd"


def _marker(folder: Path, case: str) -> Path:
    return folder / f"{case}.json"


def _files(folder: Path, case: str) -> list[Path]:
    return [_marker(folder, case), *(_array_file(folder, case, kind) for kind in KINDS)]


def _temporary(file: Path) -> Path:
    # Without a process number: the next run on this case finds and replaces a left-over.
    return file.with_name(f".{file.name}.tmp")


def _compress(array: np.ndarray) -> bytes:
    """An array as the bytes of a blosc2 file; writing them ourselves reports a full disk."""
    blosc2.set_nthreads(1)
    chunks = tuple(min(_CHUNK, n) for n in array.shape)
    compressed = blosc2.asarray(
        np.ascontiguousarray(array),
        chunks=chunks,
        blocks=tuple(min(_BLOCK, n) for n in chunks),
        cparams={
            "codec": blosc2.Codec.ZSTD,
            "clevel": _LEVEL,
            "filters": [blosc2.Filter.SHUFFLE],
            "nthreads": 1,
        },
    )
    return compressed.to_cframe()


def _unwritable(folder: Path, case: str, error: OSError) -> ScreenerError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    way_out = "free some space there" if full else "check that folder"
    return ScreenerError(
        f"{case} cannot be written to {folder} ({error.strerror or error}): {way_out} and run "
        "screener_plan_and_preprocess again, it goes on where it stopped"
    )


def _write(file: Path, content: bytes, changed_ns: int | None = None) -> int:
    temporary = _temporary(file)
    with open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        # A power cut after the rename must not leave an empty file under the final name.
        os.fsync(stream.fileno())
    if changed_ns is not None:
        os.utime(temporary, ns=(changed_ns, changed_ns))
    os.replace(temporary, file)
    return len(content)
