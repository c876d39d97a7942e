"""What a prediction may not write over, and what killed ones left behind."""

from __future__ import annotations

import os
import re
import shutil
import time
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from screener_nnu.dicom.records import Series
from screener_nnu.errors import ScreenerError
from screener_nnu.files import TEMPORARY_ENDING
from screener_nnu.inference.compressed_nifti import HEADER_PREFIX
from screener_nnu.preprocessing.reading import Source

# File systems allow 255 bytes; endings, and those of what is being written, need some of them.
_LONGEST_NAME = 215
_SUFFIXES = ("_body", "_mask", "_findings", "_map")
# A file is written within minutes; another process may be writing into the folder just now.
_OLD_SECONDS = 3600.0
_TEMPORARY = re.compile(rf"\..+\.(nii\.gz|json|csv|dcm|png|html)\.\d+{re.escape(TEMPORARY_ENDING)}")


def refuse_folder_of_scans(images: Mapping[str, Source], output: Path) -> None:
    """Refuses to write where scans lie: a map has the name of its case, as a scan may have.

    A scan lies in the folder of its name, and in that which a link leads to.

    Raises:
        ScreenerError: a scan lies in the folder.
    """
    folders: set[Path] = set()
    for source in images.values():
        if isinstance(source, Series):
            folders |= {Path(name) for name in {one.file.folder for one in source.slices}}
        else:
            folders |= {source} if source.is_dir() else {source.parent, source.resolve().parent}
    if output.resolve() in {folder.resolve() for folder in folders}:
        raise ScreenerError(
            f"{output} holds scans, which maps would replace or be taken for: give another "
            "folder for the output (-o)"
        )


def taken_names(cases: Collection[str]) -> dict[str, str]:
    """Cases whose files would have no name of their own, or none at all, and why.

    Names that differ in letter case alone, or in how an accent is written, are one name on many
    disks.
    """
    names, unusable = set(cases), {}
    folded: dict[str, str] = {}
    for case in sorted(names):
        owner = next((case.removesuffix(end) for end in _SUFFIXES if case.endswith(end)), "")
        first = folded.setdefault(unicodedata.normalize("NFC", case).casefold(), case)
        length = len(os.fsencode(case))
        if owner in names:
            unusable[case] = f"its map would replace {case}.nii.gz of the case {owner}: rename it"
        elif first != case:
            unusable[case] = (
                f"its name differs from {first} in letter case or accents alone, and on many disks "
                "one map would replace the other: rename it"
            )
        elif length > _LONGEST_NAME:
            unusable[case] = (
                f"its name has {length} bytes, and those of its map and findings would be too "
                f"long: rename it, to {_LONGEST_NAME} at most"
            )
    return unusable


def remove_half_written(output: Path) -> None:
    """Removes what killed runs were writing."""
    now = time.time()
    for path in output.glob(".*"):
        known = _TEMPORARY.fullmatch(path.name) or path.name.startswith(HEADER_PREFIX)
        try:
            if not known or now - path.stat().st_mtime < _OLD_SECONDS:
                continue
        except FileNotFoundError:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
