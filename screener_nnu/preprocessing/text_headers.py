"""MetaImage and NRRD files, whose headers are text: what SimpleITK reads past without a word.

It takes voxels of 1 mm where no size is stated, asks for the memory of any size that is, and says
of a missing file of voxels what it says of one that was cut short.
"""

from __future__ import annotations

import re
from pathlib import Path

_LONGEST_HEADER = 1 << 16
# Deflate turns at most some 1032 bytes into one.
_MOST_PACKED = 1032
_SIZES = {
    ".mha": re.compile(rb"^Element(Spacing|Size)\s*=", re.MULTILINE),
    ".mhd": re.compile(rb"^Element(Spacing|Size)\s*=", re.MULTILINE),
    ".nrrd": re.compile(rb"^(spacings|space directions):", re.MULTILINE),
}
_VOXELS = re.compile(rb"^ElementDataFile\s*=\s*(.+?)\s*$", re.MULTILINE)


def why_unusable(path: Path, size: tuple[int, ...]) -> str:
    """The reason why such a file cannot be used, or nothing.

    Args:
        path: of any file; others are passed over.
        size: voxels along its axes, as its header states.
    """
    ending = path.suffix.lower()
    if ending not in _SIZES:
        return ""
    with path.open("rb") as stream:
        header = stream.read(_LONGEST_HEADER)
    named = _VOXELS.search(header)
    if named is not None:
        header = header[: named.end()]
    if not _SIZES[ending].search(header):
        return "its header does not say how large a voxel is"
    place = named[1].decode("utf-8", "surrogateescape") if named else "LOCAL"
    # A list or a pattern of files is left to the reader.
    if place == "LIST" or re.search(r"[\s%]", place):
        return ""
    voxels = path if place == "LOCAL" else path.parent / place
    if not voxels.is_file():
        return f"its voxels, {voxels.name}, are not beside it"
    count = 1.0
    for length in size:
        count *= length
    if count > _MOST_PACKED * voxels.stat().st_size:
        shown = " x ".join(map(str, size))
        return f"its header states {shown} voxels, far more than the file can hold"
    return ""
