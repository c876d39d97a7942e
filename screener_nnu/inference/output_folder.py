"""The folder of the maps: what is written, not written over, and left behind by killed runs."""

from __future__ import annotations

import os
import re
import shutil
import time
import unicodedata
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from screener_nnu.dicom.records import Series
from screener_nnu.errors import ScreenerError
from screener_nnu.files import OLD_SECONDS, remove_half_written
from screener_nnu.inference.images import kind_of
from screener_nnu.map_kind import PICTURES, SCANS, MapKind
from screener_nnu.outputs.products import CONTACT_SHEET, product_endings
from screener_nnu.preprocessing.compressed_nifti import HEADER_PREFIX
from screener_nnu.preprocessing.reading import Source

# File systems allow 255 bytes; endings, and those of what is being written, need some of them.
_LONGEST_NAME = 215


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
            f"{output} holds {kind_of(images).noun}s, which maps would replace or be taken for: "
            "give another folder for the output (-o)"
        )


def refuse_maps_of_other_kind(output: Path, kind: MapKind) -> None:
    """Refuses to write maps of pictures where those of scans lie, and the other way round.

    Raises:
        ScreenerError: the folder holds maps of the other kind.
    """
    other = kind.other
    for body in output.glob(f"*_body{other.labels}"):
        case = body.name.removesuffix(f"_body{other.labels}")
        if (output / f"{case}{other.map}").is_file():
            raise ScreenerError(
                f"{output} holds maps of {other.noun}s ({case}{other.map}), and these are "
                f"{kind.noun}s: give another folder for the output (-o)"
            )


def taken_names(cases: Collection[str], kind: MapKind = SCANS) -> dict[str, str]:
    """Cases whose files would have no name of their own, or none at all, and why.

    Names that differ in letter case alone, or in how an accent is written, are one name on many
    disks.

    Args:
        cases: all that are asked for.
        kind: of what is predicted.
    """
    names, unusable = set(cases), {}
    beside = {"_body", "_mask", *(ending.partition(".")[0] for ending in product_endings(kind))}
    folded: dict[str, str] = {}
    for case in sorted(names):
        owners = ({case.removesuffix(end) for end in beside} - {case}) & names
        first = folded.setdefault(unicodedata.normalize("NFC", case).casefold(), case)
        length = len(os.fsencode(case))
        if owners:
            owner = min(owners)
            unusable[case] = (
                f"its map would replace {case}{kind.labels} of the case {owner}: rename it"
            )
        elif first != case:
            unusable[case] = (
                f"its name differs from {first} in letter case or accents alone, and on many disks "
                "one map would replace the other: rename it"
            )
        elif f"{case}.png".lower() == CONTACT_SHEET and kind == PICTURES:
            unusable[case] = f"its page's picture would replace {CONTACT_SHEET}: rename it"
        elif length > _LONGEST_NAME:
            unusable[case] = (
                f"its name has {length} bytes, and those of its map and findings would be too "
                f"long: rename it, to {_LONGEST_NAME} at most"
            )
    return unusable


def remove_what_was_being_written(output: Path) -> None:
    """Removes what killed runs were writing."""
    written = {".json", ".csv", *product_endings(SCANS), *product_endings(PICTURES)}
    written |= {SCANS.map, PICTURES.map, PICTURES.labels}
    endings = "|".join(map(re.escape, sorted(written)))
    remove_half_written(output, f".+({endings})", OLD_SECONDS)
    for path in output.glob(f"{HEADER_PREFIX}*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime >= OLD_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
