"""Prepared scans on disk: three compressed arrays and a marker a case, in one folder.

    <case>_hu.b2nd          int16     HU at the plan's spacing
    <case>_equalised.b2nd   float16   equalised image at the storage spacing
    <case>_body.b2nd        uint8     body mask at the storage spacing
    <case>.json             frame, settings, versions and bytes; written last

A case is finished when its marker exists. Every file appears whole or not at all.
"""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import blosc2
import numpy as np

import screener_nnu
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.plans import PreprocessingSettings, Shape
from screener_nnu.preprocessing.prepare import Frame, PreparedImage

Kind = Literal["hu", "equalised", "body"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Crops have edges of 40 to 128 voxels: chunks of 64 are read whole, blocks of 32 one by one.
_CHUNK = 64
_BLOCK = 32
# Level 5 saves 6 % more and takes seven times as long.
_LEVEL = 1
_AGAIN = "delete it and run screener_plan_and_preprocess again"


def write_case(folder: Path, case: str, prepared: PreparedImage) -> int:
    """Writes a case; the marker comes last, so a case that was cut short never looks finished.

    Returns:
        Bytes on disk.

    Raises:
        ScreenerError: a file could not be written, for instance because the disk is full; nothing
            of the case is left then. The next case would fare no better, so it is no `CaseError`.
    """
    arrays: dict[Kind, np.ndarray] = {
        "hu": np.rint(prepared.hu).astype(np.int16),
        "equalised": prepared.equalised.astype(np.float16),
        "body": prepared.body.astype(np.uint8),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _marker(folder, case).unlink(missing_ok=True)
        sizes = {
            kind: _write(_array_file(folder, case, kind), _compress(array))
            for kind, array in arrays.items()
        }
        marker = json.dumps(_describe(prepared, sizes), indent=2).encode() + b"\n"
        return sum(sizes.values()) + _write(_marker(folder, case), marker)
    except OSError as error:
        remove_case(folder, case)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way_out = "free some space there" if full else "check that folder"
        raise ScreenerError(
            f"{case} cannot be written to {folder} ({error.strerror or error}): {way_out} and run "
            "screener_plan_and_preprocess again, it goes on where it stopped"
        ) from error


def remove_case(folder: Path, case: str) -> None:
    """Removes what an interrupted write left of a case, the marker first."""
    files = [_marker(folder, case)] + [_array_file(folder, case, kind) for kind in KINDS]
    for file in files:
        file.unlink(missing_ok=True)
        _temporary(file).unlink(missing_ok=True)


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
        return Frame.from_dict(self._description(case)["frame"])

    def settings(self, case: str) -> dict[str, Any]:
        """The settings a case was made with, as plain values."""
        return self._description(case)["settings"]

    def bytes_on_disk(self, case: str) -> int:
        """Bytes that the arrays of a case take on disk."""
        return sum(self._description(case)["bytes"].values())

    def changed(self, case: str) -> float:
        """When a case was finished, in seconds since the epoch."""
        file = _marker(self.folder, case)
        try:
            return file.stat().st_mtime
        except OSError as error:
            raise self._unreadable(case, file, error) from error

    def is_whole(self, case: str) -> bool:
        """Whether the marker can be read and every array has the size that it states."""
        try:
            sizes = self._description(case)["bytes"]
            found = {k: _array_file(self.folder, case, k).stat().st_size for k in KINDS}
        except (CaseError, OSError):
            return False
        return sizes == found

    def shape(self, case: str, kind: Kind) -> Shape:
        """Voxels of an array, (z, y, x)."""
        z, y, x = self._open(case, kind).shape
        return z, y, x

    def read(self, case: str, kind: Kind) -> np.ndarray:
        """A whole array in its stored type, (z, y, x)."""
        shape = self.shape(case, kind)
        return self.read_box(case, kind, (0, 0, 0), shape)

    def read_box(self, case: str, kind: Kind, start: Shape, stop: Shape) -> np.ndarray:
        """The voxels `start` to `stop` (exclusive) of an array, reading only what they need.

        Raises:
            CaseError: the file is missing or damaged.
            ValueError: the box is empty or not inside the array.
        """
        array = self._open(case, kind)
        bounds = list(zip(start, stop, array.shape, strict=True))
        if not all(0 <= first < last <= n for first, last, n in bounds):
            raise ValueError(f"box {start} to {stop} is not inside {case} {array.shape}")
        try:
            return np.asarray(array[tuple(slice(first, last) for first, last, _ in bounds)])
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

    def _description(self, case: str) -> dict[str, Any]:
        file = _marker(self.folder, case)
        try:
            values = json.loads(file.read_text())
            return {key: values[key] for key in ("frame", "settings", "bytes")}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(case, file, error) from error

    @staticmethod
    def _unreadable(case: str, file: Path, error: Exception) -> CaseError:
        return CaseError(case, f"{file} is missing or damaged ({error}): {_AGAIN}")


def settings_values(settings: PreprocessingSettings) -> dict[str, Any]:
    """Settings as plain JSON values, as a marker holds them."""
    return json.loads(json.dumps(asdict(settings)))


def _array_file(folder: Path, case: str, kind: Kind) -> Path:
    return folder / f"{case}_{kind}.b2nd"


def _marker(folder: Path, case: str) -> Path:
    return folder / f"{case}.json"


def _temporary(file: Path) -> Path:
    # Without a process number: the next run on this case finds and replaces a left-over.
    return file.with_name(f".{file.name}.tmp")


def _describe(prepared: PreparedImage, sizes: dict[Kind, int]) -> dict[str, Any]:
    return {
        "frame": prepared.frame.to_dict(),
        "spacing": list(prepared.settings.spacing),
        "storage_spacing": list(prepared.settings.storage_spacing),
        "settings": settings_values(prepared.settings),
        "bytes": sizes,
        "versions": {
            "screener_nnu": screener_nnu.__version__,
            "blosc2": blosc2.__version__,
            "numpy": np.__version__,
        },
    }


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


def _write(file: Path, content: bytes) -> int:
    temporary = _temporary(file)
    with open(temporary, "wb") as stream:
        stream.write(content)
        stream.flush()
        # A power cut after the rename must not leave an empty file under the final name.
        os.fsync(stream.fileno())
    os.replace(temporary, file)
    return len(content)
