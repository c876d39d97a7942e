"""Which scan a map was made of."""

from __future__ import annotations

import hashlib

from screener_nnu.dicom.records import Series
from screener_nnu.ownership import content_identity
from screener_nnu.preprocessing.reading import Source


def source_identity(source: Source) -> str:
    """A hash that another scan in the same place does not have; it tells nothing of the person.

    Of a file it is that of length, beginning and end, whenever it was copied; of a series that of
    its instances. A folder has none (an empty text), and neither has what cannot be read.
    """
    if not isinstance(source, Series):
        return content_identity(source)
    names = sorted(f"{one.sop_uid} {one.frame}" for one in source.slices)
    return hashlib.sha256("".join(names).encode()).hexdigest()[:16]
