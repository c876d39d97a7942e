"""Grey or colour, 8 or 16 bit: what pictures are, and which of it a data set gets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from screener_nnu.dicom.files import is_dicom
from screener_nnu.dicom.radiographs import read_radiograph
from screener_nnu.errors import CaseError, ScreenerError, some
from screener_nnu.importing.records import COLOURS, Form, PictureRow
from screener_nnu.preprocessing.pictures import Picture, picture_header, read_picture

AUTO = "auto"
_CHANNELS = {name: channels for channels, name in COLOURS.items()}


@dataclass(frozen=True, slots=True)
class Kind:
    """What a picture is.

    Attributes:
        channels: 1 for grey, 3 for colour.
        bits: 8 or 16; 0 for 16 that hold values of 8.
        problem: why it cannot be read.
    """

    channels: int = 0
    bits: int = 0
    problem: str = ""


def read_source(path: Path, case: str) -> Picture:
    """A picture, or a radiograph in DICOM.

    Raises:
        CaseError: it cannot be used.
    """
    return read_radiograph(path, case) if is_dicom(path) else read_picture(path, case)


def stated_kind(case: str, path: Path) -> Kind:
    """What the header of a file states."""

    def read() -> Kind:
        if is_dicom(path):
            return Kind(1, 8)
        header = picture_header(path, case)
        return Kind(header.channels, header.bits)

    return _or_problem(read)


def shown_kind(case: str, path: Path) -> Kind:
    """What the pixels of a file show: three equal channels are grey."""

    def read() -> Kind:
        picture = read_source(path, case)
        bits = picture.stored_bits if picture.stored_bits == 8 * picture.pixels.itemsize else 0
        return Kind(1 if is_grey(picture.pixels) else 3, bits)

    return _or_problem(read)


def is_grey(pixels: NDArray[np.uint8 | np.uint16]) -> bool:
    """Whether the channels of (C, H, W) are equal everywhere."""
    return bool((pixels == pixels[:1]).all())


def must_be_looked_at(kinds: dict[str, Kind], colour: str, written: Form | None) -> list[str]:
    """Cases whose header does not tell enough.

    Args:
        kinds: of all new pictures by their headers.
        colour: `auto`, `grey` or `rgb`.
        written: how earlier pictures of the data set were written.
    """
    bits = {kind.bits for kind in kinds.values() if not kind.problem}
    mixed = len(bits | ({written.bits} if written else set())) > 1
    return [
        case
        for case, kind in kinds.items()
        if (kind.channels == 3 and colour == AUTO) or (kind.bits == 16 and mixed)
    ]


def use_16_bits(kinds: dict[str, Kind], paths: dict[str, Path]) -> bool:
    """Whether one of the pictures that state 16 bits has values beyond 8; mostly the first has."""
    deep = (case for case, kind in kinds.items() if kind.bits == 16)
    return any(shown_kind(case, paths[case]).bits == 16 for case in deep)


def choose_form(rows: Iterable[PictureRow], colour: str, written: Form | None) -> Form:
    """How the pictures of a data set are to be written.

    Args:
        rows: of all its pictures; those whose kind is not known are passed over.
        colour: `auto`, `grey` or `rgb`.
        written: how earlier ones were.

    Raises:
        ScreenerError: kinds are mixed, or the earlier ones are others.
    """
    by_channels: dict[int, list[str]] = defaultdict(list)
    by_bits: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        if row.channels:
            by_channels[row.channels].append(row.source)
            by_bits[row.bits].append(row.source)
    if colour == AUTO and len(by_channels) > 1:
        raise ScreenerError(
            f"pictures are mixed: grey {some(by_channels[1])}; colour {some(by_channels[3])}. "
            "Import them apart, or give --colour grey or --colour rgb, which converts the others"
        )
    if by_bits.keys() >= {8, 16}:
        raise ScreenerError(
            f"pictures are mixed: 8 bit {some(by_bits[8])}; 16 bit {some(by_bits[16])}. Their "
            "values have no common scale: import them apart, or save all with the same bits"
        )
    channels = _CHANNELS[colour] if colour != AUTO else min(by_channels, default=1)
    form = Form(channels, 16 if 16 in by_bits else 8)
    if written is not None and form != written:
        raise ScreenerError(
            f"the data set has pictures in {written}, and now they would be in {form}: choose "
            f"another -d, or give --colour {COLOURS[written.channels]} as before"
        )
    return form


def _or_problem(read: Callable[[], Kind]) -> Kind:
    try:
        return read()
    except CaseError as error:
        return Kind(problem=error.reason)
    except OSError as error:
        return Kind(problem=str(error.strerror or error))
