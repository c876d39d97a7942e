"""Volumes of CT in a folder tree or zip, and why everything else in there is left out."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from screener_nnu.dicom.files import (
    FileRef,
    Opener,
    ZipError,
    close_zips,
    list_files,
    looks_like_dicom,
)
from screener_nnu.dicom.grouping import split_series
from screener_nnu.dicom.headers import read_header
from screener_nnu.dicom.quiet import describe
from screener_nnu.dicom.records import Found, LeftOut, Series, SeriesInfo, Slice

logger = logging.getLogger(__name__)

MIN_SLICES = 5
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Archives that are not looked into; of zips it is those within a zip.
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".dcm.gz", ".7z", ".rar")
# Values of Image Type for images whose values are no HU of a place: projections and renderings.
_PROJECTED = frozenset(
    {"MIP", "MINIP", "MIPS", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "VOLUME RENDERING", "VRT"}
    | {"RENDERED", "3D RENDERING", "SCREEN SAVE", "SCREENSHOT"}
)
# What the first file of a kind says of its series, and the slices.
_Kind = tuple[SeriesInfo, list[Slice]]
# What slices of a series mostly have in common.
_OFTEN_EQUAL = ("orientation", "spacing", "shape", "slope", "intercept", "clocks")
# Unspecified units are common; what they are is seen from the values later.
_HU_UNITS = ("", "HU", "US", "HOUNSFIELD", "HU_MOD")


def find_series(
    source: Path,
    min_slices: int = MIN_SLICES,
    progress: bool = False,
    ignored: Sequence[str] = (),
) -> Found:
    """Reads the headers of all files and sorts them into volumes.

    Args:
        source: folder (nested, mixed, any file names), zip of one, or a single DICOM file.
        min_slices: volumes of fewer slices are left out.
        progress: shows a bar when it takes longer than two seconds.
        ignored: endings of file names, lower case, that are not looked into.

    Raises:
        ZipError: the zip cannot be read or is not safe to read; zips within a folder are noted.
    """
    bad_zips: list[ZipError] = []
    bad_folders: list[Path] = []
    contents = _Contents()
    listed = list_files(source, bad_zips, bad_folders)
    files = (f for f in listed if not f.name.lower().endswith(tuple(ignored)))
    with Opener() as opener:
        for file in tqdm(files, desc="headers", unit="file", delay=2, disable=not progress):
            contents.add(file, opener)
    # The directory of a large zip takes more memory than all headers.
    close_zips()
    taken: list[Series] = []
    left_out: list[LeftOut] = []
    for uid in sorted(contents.kinds):
        kinds = list(contents.kinds[uid].values())
        try:
            taken.extend(_volumes(kinds, min_slices, left_out))
        # Headers can state anything; one series must not end the search for the others.
        except Exception as error:
            whole = Series(kinds[0][0], tuple(one for _, slices in kinds for one in slices))
            logger.warning("%s: unexpected error", whole.pseudonym, exc_info=True)
            left_out.append(LeftOut(whole, f"its headers make no volume ({describe(error)})"))
    return Found(
        series=tuple(taken),
        left_out=tuple(left_out),
        unreadable=contents.unreadable,
        other_files=contents.other,
        archives=contents.archives,
        bad_zips=tuple(bad_zips),
        bad_folders=tuple(bad_folders),
    )


@dataclass
class _Contents:
    """Headers by Series Instance UID and kind of image, and how many files are no such thing."""

    kinds: dict[str, dict[Any, _Kind]] = field(default_factory=lambda: defaultdict(dict))
    unreadable: int = 0
    other: int = 0
    archives: int = 0
    # One a field: (2, 2) pixels and (2.0, 2.0) mm are equal, too.
    _shared: dict[str, dict[Any, Any]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, file: FileRef, opener: Opener) -> None:
        try:
            with opener.open(file) as stream:
                header = read_header(stream, file) if looks_like_dicom(stream) else None
        # A damaged member of a zip raises nearly anything, zlib.error and EOFError among it.
        except Exception:
            self.unreadable += 1
            return
        if header is None:
            self.other += 1
            self.archives += file.name.lower().endswith(_ARCHIVES)
            return
        info, found = header
        _, slices = self.kinds[info.uid].setdefault(_kind(info), (info, []))
        slices.extend(map(self._share, found))

    def _share(self, one: Slice) -> Slice:
        """The slice with values that another slice also has taken from it, which saves memory."""
        values = {name: getattr(one, name) for name in _OFTEN_EQUAL}
        return replace(one, **{k: self._shared[k].setdefault(v, v) for k, v in values.items()})


def _kind(info: SeriesInfo) -> tuple[object, ...]:
    """What decides whether an image has CT values, and may differ within a series."""
    projected = _PROJECTED.intersection(info.image_type)
    picture = info.sop_class.startswith(_SECONDARY_CAPTURE)
    rescaling = info.rescale_type.upper(), info.modality_table
    return info.modality, picture, info.colour, projected, rescaling


def _volumes(kinds: list[_Kind], min_slices: int, left_out: list[LeftOut]) -> list[Series]:
    """Volumes of a series; the others are added to `left_out`.

    One saved screen among the slices is left out alone.
    """
    usable: list[_Kind] = []
    unusable: dict[str, _Kind] = {}
    for info, slices in kinds:
        reason = _unusable_series(info, slices)
        if not reason:
            usable.append((info, slices))
            continue
        _, others = unusable.setdefault(reason, (info, []))
        others.extend(slices)
    pieces = []
    if usable:
        pieces = split_series(usable[0][0], [one for _, slices in usable for one in slices])
    # Parts of a series have numbers, so that each has its own name; the volumes keep theirs.
    first = len(pieces) + 1 if len(pieces) + len(unusable) > 1 else 0
    for part, (reason, (info, slices)) in enumerate(sorted(unusable.items()), first):
        left_out.append(LeftOut(Series(info, tuple(slices), part), reason))
    taken = []
    for piece in pieces:
        reason = _unusable_piece(piece, min_slices)
        if reason:
            left_out.append(LeftOut(piece, reason))
        else:
            taken.append(piece)
    if len(taken) == 1:
        # The volume of a series with a scout is the series: its name has no number of a part.
        taken = [Series(usable[0][0], taken[0].slices)]
    return taken


def _unusable_series(info: SeriesInfo, slices: list[Slice]) -> str:
    if info.modality != "CT":
        return f"modality {info.modality or 'not stated'}, not CT"
    placed = any(s.position is not None for s in slices)
    if info.sop_class.startswith(_SECONDARY_CAPTURE) and not placed:
        return "a secondary capture (a picture of a screen), not the scan"
    if info.colour not in ("MONOCHROME2", ""):
        return f"pictures in {info.colour}, not CT values"
    projected = _PROJECTED.intersection(info.image_type)
    if projected:
        return (
            f"a projection or rendering (Image Type {' '.join(sorted(projected))}), not CT values"
        )
    if info.rescale_type.upper() not in _HU_UNITS:
        return f"values in {info.rescale_type}, not in HU"
    if info.modality_table:
        return "values go through a table instead of slope and intercept, which is not supported"
    return ""


def _unusable_piece(series: Series, min_slices: int) -> str:
    first = series.slices[0]
    if first.localizer:
        return "a scout image (localizer)"
    if first.position is None or first.orientation is None or first.spacing is None:
        derived = "DERIVED" in series.info.image_type
        return "derived images without positions" if derived else "slices without positions"
    number = len({s.identity for s in series.slices})
    if number < min_slices:
        return f"{number} slice{'s' * (number > 1)}, fewer than {min_slices}"
    return ""
