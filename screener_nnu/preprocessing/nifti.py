"""What SimpleITK does not tell about a NIfTI file: that it is cut short, or holds NaN.

Its NIfTI library reads both without an error and puts 0 in their place, which in CT is water.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

_PIECE = 1 << 24
_FLOATS = {16: "f4", 64: "f8"}


@dataclass(frozen=True)
class _Header:
    start: int
    stop: int
    number_type: str


def find_damage(path: Path) -> str:
    """Says what is wrong with the voxels of a NIfTI file, or nothing.

    Whole numbers in a gzip file need no second reading: its last four bytes state the length, and
    those of a file that was cut short state another one.

    Args:
        path: a file `.nii` or `.nii.gz`; every other file passes.

    Returns:
        An empty text, or a short reason.
    """
    if not path.name.endswith((".nii", ".nii.gz")):
        return ""
    packed = path.name.endswith(".gz")
    try:
        with _open(path, packed) as stream:
            header = _read_header(stream)
        length, wanted = _stated_length(path, packed), header.stop
        if not header.number_type and length == (wanted % (1 << 32) if packed else wanted):
            return ""
        with _open(path, packed) as stream:
            return _read_through(stream, header)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error):
        return "the file is cut short"


def _open(path: Path, packed: bool) -> gzip.GzipFile | IO[bytes]:
    return gzip.open(path, "rb") if packed else open(path, "rb")


def _stated_length(path: Path, packed: bool) -> int:
    if not packed:
        return path.stat().st_size
    with open(path, "rb") as stream:
        stream.seek(-4, 2)
        return struct.unpack("<I", stream.read(4))[0]


def _read_header(stream: gzip.GzipFile | IO[bytes]) -> _Header:
    """Where the voxels start and stop (bytes), from a NIfTI-1 or NIfTI-2 header."""
    head = stream.read(348)
    order = "<" if struct.unpack_from("<i", head)[0] in (348, 540) else ">"
    if struct.unpack_from(f"{order}i", head)[0] == 540:
        kind, bits = struct.unpack_from(f"{order}2h", head, 12)
        sizes = struct.unpack_from(f"{order}8q", head, 16)
        start = struct.unpack_from(f"{order}q", head, 168)[0]
    else:
        sizes = struct.unpack_from(f"{order}8h", head, 40)
        kind, bits = struct.unpack_from(f"{order}2h", head, 70)
        start = int(struct.unpack_from(f"{order}f", head, 108)[0])
    count = int(np.prod([float(n) for n in sizes[1 : 1 + sizes[0]]]))
    name = order + _FLOATS[kind] if kind in _FLOATS else ""
    return _Header(start, start + count * bits // 8, name)


def _read_through(stream: gzip.GzipFile | IO[bytes], header: _Header) -> str:
    stream.seek(header.start)
    left = header.stop - header.start
    while left > 0:
        piece = stream.read(min(_PIECE, left))
        left -= len(piece)
        # These streams return less than asked for at the end of the file only.
        if left and len(piece) < _PIECE:
            return "the file is cut short"
        if header.number_type and not np.isfinite(np.frombuffer(piece, header.number_type)).all():
            return "the image holds NaN or infinite values"
    return ""
