"""What a folder holds: pictures, scans, or both, by names and first bytes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from screener_nnu.dicom.files import is_zip
from screener_nnu.dicom.radiographs import RADIOGRAPHS, image_modality
from screener_nnu.errors import ScreenerError, printable, some
from screener_nnu.preprocessing.image_files import is_volume
from screener_nnu.preprocessing.pictures import is_picture

logger = logging.getLogger(__name__)

# So many volumes beside pictures are enough to tell that there are some.
_ENOUGH = 5


@dataclass(frozen=True)
class Pictures:
    """The pictures of a folder.

    Attributes:
        root: the folder, or that of a table.
        files: their paths relative to it, with `/`, in order; a picture is a file by its ending,
            or a DICOM radiograph.
        table: the CSV that was given in place of a folder.
    """

    root: Path
    files: tuple[str, ...] = ()
    table: Path | None = None


def find_pictures(source: Path) -> Pictures | None:
    """The pictures of a folder of any depth, or a table of them; None for an export of scans.

    Hidden files and folders are left out, and links to folders are not followed. DICOM other than
    radiographs makes an export of scans, whatever pictures lie beside it.

    Raises:
        ScreenerError: the folder holds volumes as well, or a single picture was given.
    """
    if source.is_file():
        if source.suffix.lower() == ".csv":
            return Pictures(source.parent, table=source)
        if is_picture(source):
            raise ScreenerError(f"{source} is a single picture: give the folder that holds them")
        return None
    files: list[str] = []
    others: list[str] = []
    for name in _names(source):
        (files if is_picture(name) else others).append(name)
    if not files:
        return _radiographs(source, others)
    scans, radiographs = _scans_and_radiographs(source, others)
    if any(not is_volume(name) for name in scans):
        logger.warning(
            "an export of scans, whose pictures are left out: %s", some(map(printable, files))
        )
        return None
    if scans:
        raise ScreenerError(
            f"{source} holds pictures ({some(map(printable, files))}) and scans "
            f"({some(map(printable, scans))}): slices and volumes make no common data set; give "
            "the folder of one kind"
        )
    return Pictures(source, tuple(sorted([*files, *radiographs])))


def _names(source: Path) -> Iterator[str]:
    """Paths of files relative to a folder, with `/`, as text."""
    top = os.fspath(source)

    def note(error: OSError) -> None:
        logger.warning(
            "%s cannot be read (%s): see to its rights", printable(error.filename), error.strerror
        )

    for folder, folders, files in os.walk(top, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        prefix = "" if folder == top else os.path.relpath(folder, top).replace(os.sep, "/") + "/"
        for name in sorted(files):
            if not name.startswith("."):
                yield prefix + name


def _radiographs(source: Path, names: Iterable[str]) -> Pictures | None:
    """The radiographs of a folder with nothing else in DICOM; None as soon as something else is."""
    found = []
    for name in names:
        modality = image_modality(source / name)
        if modality in RADIOGRAPHS:
            found.append(name)
        elif modality is not None or (name.lower().endswith(".zip") and is_zip(source / name)):
            return None
    return Pictures(source, tuple(found)) if found else None


def _scans_and_radiographs(source: Path, names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Files of volumes, of which some are enough, and radiographs."""
    scans: list[str] = []
    radiographs: list[str] = []
    for name in names:
        modality = image_modality(source / name)
        if modality in RADIOGRAPHS:
            radiographs.append(name)
        elif modality is not None or is_volume(name):
            scans.append(name)
        if len(scans) == _ENOUGH:
            break
    return scans, radiographs
