"""Which scan a map was made of."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from screener_nnu.dicom.records import Series
from screener_nnu.preprocessing.reading import Source

# A gzip file ends in a checksum of all of it.
_END = 1 << 16


def source_identity(source: Source) -> str:
    """A hash that another scan in the same place does not have; it tells nothing of the person.

    Of a file it is that of length, beginning and end, whenever it was copied; of a series that of
    its instances. A folder has none (an empty text), and neither has what cannot be read.
    """
    digest = hashlib.sha256()
    if isinstance(source, Series):
        for name in sorted(f"{one.sop_uid} {one.frame}" for one in source.slices):
            digest.update(name.encode())
    elif not source.is_file() or not _add_ends(digest, source):
        return ""
    return digest.hexdigest()[:16]


def _add_ends(digest: hashlib._Hash, path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            length = stream.seek(0, os.SEEK_END)
            digest.update(f"{length} ".encode())
            for first in (0, max(length - _END, 0)):
                stream.seek(first)
                digest.update(stream.read(_END))
    except OSError:
        return False
    return True
