"""Pixels as picture files store them, by Pillow and tifffile, and what had to be converted.

Errors are those of the libraries; `pictures` says them as errors of a case.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

#: More pixels than this are taken for a file that unpacks to fill the memory; as in Pillow.
MAX_PIXELS = 178_956_970
# What Pillow is asked to recognise, whatever the name of the file ends in.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112
# Places in the first bytes of a PNG.
_PNG_BITS, _PNG_COLOUR, _PNG_HEAD = 24, 25, 26
_PNG_SEVERAL_CHANNELS = (2, 4, 6)  # RGB, grey with alpha, RGBA
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")


class PixelsError(ValueError):
    """Pixels that a picture cannot have; says what is wrong, or what is wrong and what to do."""


@dataclass(frozen=True)
class Decoded:
    """A picture as it is stored, turned as its orientation says.

    Attributes:
        pixels: (H, W) or (H, W, C) of grey or RGB, alpha already dropped.
        notes: sentences about what was converted.
    """

    pixels: NDArray[Any]
    notes: tuple[str, ...]


def decode(path: Path) -> Decoded:
    """Reads all pixels of the first frame or page.

    Raises:
        Exception: nearly anything, if the file is damaged.
    """
    return _decode_tiff(path) if _is_tiff(path) else _decode_with_pillow(path)


def stored_shape(path: Path) -> tuple[int, int, int]:
    """Channels, rows and columns from the header, turned as the orientation says.

    Raises:
        Exception: nearly anything, if the header is damaged.
    """
    if _is_tiff(path):
        with _first_page(path) as (page, _):
            several = page.photometric.name not in ("MINISWHITE", "MINISBLACK")
            size, orientation = (page.imagelength, page.imagewidth), _tiff_orientation(page)
    else:
        with _opened(path) as image:
            several = not image.mode.startswith("I;") and image.mode not in _GREY_MODES
            size = (image.height, image.width)
            orientation = image.getexif().get(_ORIENTATION, 1)
    rows, columns = size[::-1] if orientation >= 5 else size
    return 3 if several else 1, rows, columns


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in _TIFF_STARTS


def _refuse_bomb(pixels: int) -> None:
    if pixels > MAX_PIXELS:
        raise PixelsError(f"it claims {pixels / 1e6:.0f} million pixels")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The picture by Pillow, of which only the header was read."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise PixelsError(
                f"it claims more than {MAX_PIXELS / 1e6:.0f} million pixels"
            ) from error
        with image:
            _refuse_bomb(image.width * image.height)
            yield image


def _decode_with_pillow(path: Path) -> Decoded:
    notes: list[str] = []
    with _opened(path) as image:
        orientation = image.getexif().get(_ORIENTATION, 1)
        if image.format != "JPEG" and getattr(image, "n_frames", 1) > 1:
            notes.append(f"it has {image.n_frames} frames: the first was taken")
        if _is_deep_png(path):
            pixels = _without_alpha(_deep_pixels(path), notes)
        else:
            pixels = np.array(_plain(image, notes))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    return Decoded(_turned(pixels, orientation, notes), tuple(notes))


def _is_deep_png(path: Path) -> bool:
    """Whether a PNG has 16 bits and more than one channel."""
    with path.open("rb") as stream:
        head = stream.read(_PNG_HEAD)
    return (
        head.startswith(b"\x89PNG")
        and len(head) == _PNG_HEAD
        and head[_PNG_BITS] == 16
        and head[_PNG_COLOUR] in _PNG_SEVERAL_CHANNELS
    )


def _deep_pixels(path: Path) -> NDArray[Any]:
    """Pixels (H, W, C) of which Pillow would keep only 8 of the 16 bits."""
    with _opened(path) as image:
        image.verify()
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="PNGImageIO"))
    except RuntimeError as error:
        raise PixelsError("its pixels are damaged or cut short") from error


def _plain(image: Any, notes: list[str]) -> Any:
    """A picture of Pillow as grey or RGB."""
    mode = image.mode
    if mode in ("L", "RGB", "I", "F") or mode.startswith("I;"):
        return image
    if mode == "1":
        notes.append("its 1 bit became 0 and 255")
        return image
    if mode in ("P", "PA"):
        notes.append("its palette was converted to RGB")
        # By way of RGBA where a colour is transparent, which Pillow warns of otherwise.
        return image.convert("RGBA").convert("RGB")
    if mode in ("LA", "La", "RGBA", "RGBa", "RGBX"):
        notes.append("its alpha channel was dropped")
        return image.convert("L" if mode[0] == "L" else "RGB")
    notes.append(f"{mode} was converted to RGB")
    return image.convert("RGB")


@contextmanager
def _first_page(path: Path) -> Iterator[tuple[Any, int]]:
    """The first page of a TIFF, and how many there are."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        _refuse_bomb(page.imagelength * page.imagewidth)
        # ImageJ stores a whole stack behind the header of one page.
        stack = file.series[0].size // max(page.size, 1) if file.is_imagej else 1
        yield page, max(len(file.pages), stack)


def _tiff_orientation(page: Any) -> int:
    return int(page.tags.valueof("Orientation", 1))


def _decode_tiff(path: Path) -> Decoded:
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
        pixels = _tiff_colours(pixels, page, notes)
        return Decoded(_turned(pixels, _tiff_orientation(page), notes), tuple(notes))


def _tiff_colours(pixels: NDArray[Any], page: Any, notes: list[str]) -> NDArray[Any]:
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
    return _without_alpha(pixels, notes)


def _without_alpha(pixels: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    if pixels.ndim == 2 or pixels.shape[-1] in (1, 3):
        return pixels
    if pixels.shape[-1] not in (2, 4):
        raise PixelsError(f"it has {pixels.shape[-1]} channels: save it as grey or RGB")
    notes.append("its alpha channel was dropped")
    return pixels[..., :-1]


def _turned(pixels: NDArray[Any], orientation: int, notes: list[str]) -> NDArray[Any]:
    """Pixels as they are to be seen; `orientation` as EXIF and TIFF define it, from 1 to 8."""
    if orientation not in range(2, 9):
        return pixels
    notes.append("it was turned as its orientation (EXIF) says")
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # After the exchange of axes, 5 is upright; the others are flipped up-down, left-right or both.
    rows, columns = {
        2: (1, -1),
        3: (-1, -1),
        4: (-1, 1),
        5: (1, 1),
        6: (1, -1),
        7: (-1, -1),
        8: (-1, 1),
    }[orientation]
    return pixels[::rows, ::columns]
