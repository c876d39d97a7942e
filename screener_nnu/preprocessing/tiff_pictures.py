"""Pixels of TIFF files by tifffile, and what had to be converted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.preprocessing.picture_pixels import (
    ORIENTATION,
    Decoded,
    Header,
    PixelsError,
    refuse_bomb,
    turned,
    without_alpha,
)

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(path: Path) -> bool:
    """Whether a file is a TIFF, by its first bytes."""
    with path.open("rb") as stream:
        return stream.read(4) in _STARTS


def decode(path: Path) -> Decoded:
    """Reads all pixels of the first frame or page.

    Raises:
        Exception: nearly anything, if the file is damaged.
    """
    notes: list[str] = []
    with _first_page(path) as (page, pages):
        if pages > 1:
            notes.append(f"it has {pages} pages: the first was taken")
        ends = (a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > path.stat().st_size or not all(page.databytecounts):
            raise PixelsError("it is cut short")
        if page.imagedepth > 1:
            raise PixelsError("it is a volume: give single pictures, or the volume as NIfTI")
        pixels = page.asarray()
        if page.axes.startswith("S"):
            pixels = np.moveaxis(pixels, 0, -1)
        pixels = _colours(pixels, page, notes)
        return Decoded(turned(pixels, _orientation(page), notes), tuple(notes))


def read_header(path: Path) -> Header:
    """What the header of the first page tells, turned as the orientation says.

    Raises:
        Exception: nearly anything, if the header is damaged.
    """
    with _first_page(path) as (page, _):
        several = page.photometric.name not in ("MINISWHITE", "MINISBLACK")
        size = (page.imagelength, page.imagewidth)
        return Header.of(several, page.bitspersample > 8, size, _orientation(page))


@contextmanager
def _first_page(path: Path) -> Iterator[tuple[Any, int]]:
    """The first page of a TIFF, and how many there are."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        refuse_bomb(page.imagelength * page.imagewidth)
        # ImageJ stores a whole stack behind the header of one page.
        stack = file.series[0].size // max(page.size, 1) if file.is_imagej else 1
        yield page, max(len(file.pages), stack)


def _orientation(page: Any) -> int:
    return int(page.tags.valueof(ORIENTATION, 1))


def _colours(pixels: NDArray[Any], page: Any, notes: list[str]) -> NDArray[Any]:
    """Stored values (H, W) or (H, W, C) as grey or RGB."""
    from PIL import Image

    kind = page.photometric.name
    if pixels.dtype == bool:
        notes.append("its 1 bit became 0 and 255")
        pixels = pixels.astype(np.uint8) * 255
    if kind == "MINISWHITE" and pixels.dtype.kind == "u":
        notes.append("its values were inverted, because 0 is white in it")
        pixels = np.iinfo(pixels.dtype).max - pixels
    if kind == "PALETTE":
        notes.append("its palette was converted to RGB")
        return (np.moveaxis(page.colormap[:, pixels], 0, -1) >> 8).astype(np.uint8)
    if kind == "SEPARATED" and pixels.dtype == np.uint8 and pixels.shape[-1] == 4:
        notes.append("CMYK was converted to RGB")
        return np.array(Image.fromarray(pixels, "CMYK").convert("RGB"))
    if kind not in ("MINISWHITE", "MINISBLACK", "RGB", "YCBCR"):
        raise PixelsError(f"its colours are {kind}: save it as grey or RGB")
    return without_alpha(pixels, notes)
