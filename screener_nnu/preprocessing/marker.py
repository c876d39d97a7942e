"""The marker of a prepared case: what it is, and which scan and settings it was made from."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

import screener_nnu
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.preprocessing.prepare import PreparedImage
from screener_nnu.preprocessing.source_state import SourceState


@dataclass(frozen=True)
class Marker:
    """What the marker of a case says.

    Attributes:
        frame, settings: as plain values.
        sizes: bytes of each array.
        checksums: CRC-32 of each array's file; empty in markers of an earlier version.
        source: the scan that the case was made from; None in markers of an earlier version.
        written_ns: when the marker was written (ns since the epoch).
    """

    frame: dict[str, Any]
    settings: dict[str, Any]
    sizes: dict[str, int]
    checksums: dict[str, int]
    source: SourceState | None
    written_ns: int

    @classmethod
    def read(cls, file: Path) -> Marker:
        """Reads a marker.

        Raises:
            OSError: it is not there.
            ValueError: it is damaged, or a file of somebody else.
        """
        with file.open(encoding="utf-8") as stream:
            values, written_ns = json.load(stream), os.fstat(stream.fileno()).st_mtime_ns
        if not isinstance(values, dict):
            raise ValueError("it holds no settings")
        frame, settings, sizes = (values.get(key) for key in ("frame", "settings", "bytes"))
        if not (isinstance(frame, dict) and isinstance(settings, dict) and isinstance(sizes, dict)):
            raise ValueError("it lacks frame, settings or bytes")
        source = SourceState.from_dict(values.get("source"))
        checksums = values.get("crc32", {})
        return cls(frame, settings, sizes, checksums, source, written_ns)

    def is_of(self, scan: SourceState) -> bool:
        """Whether the case was made from a scan as it is now."""
        if self.source is None:
            return scan.changed_ns <= self.written_ns
        return self.source.sha256 == scan.sha256


def marker_bytes(
    prepared: PreparedImage, arrays: Mapping[str, bytes], source: SourceState | None
) -> bytes:
    """A marker as its file holds it.

    Args:
        prepared: the case.
        arrays: what the file of each array holds.
        source: the scan that it was made from.
    """
    return _json_bytes(
        {
            "frame": prepared.frame.to_dict(),
            "spacing": list(prepared.settings.spacing),
            "storage_spacing": list(prepared.settings.storage_spacing),
            "settings": settings_values(prepared.settings),
            "bytes": {kind: len(content) for kind, content in arrays.items()},
            "crc32": {kind: zlib.crc32(content) for kind, content in arrays.items()},
            "source": source and source.to_dict(),
            "versions": {
                "screener_nnu": screener_nnu.__version__,
                "blosc2": blosc2.__version__,
                "numpy": np.__version__,
            },
        }
    )


def with_source(content: bytes, source: SourceState) -> bytes:
    """The marker of an earlier version, given as its file holds it, with the scan in it."""
    return _json_bytes({**json.loads(content), "source": source.to_dict()})


def _json_bytes(values: dict[str, Any]) -> bytes:
    """Plain values as a JSON file."""
    return json.dumps(values, indent=2).encode() + b"\n"


def settings_values(settings: PreprocessingSettings) -> dict[str, Any]:
    """Settings as plain JSON values, as a marker holds them."""
    return json.loads(json.dumps(settings.identity()))
