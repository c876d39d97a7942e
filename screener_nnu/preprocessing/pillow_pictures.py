"""Pixels of PNG, JPG and BMP files by Pillow, and what had to be converted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from screener_nnu.preprocessing.picture_pixels import (
    ORIENTATION,
    TOO_MANY,
    Decoded,
    Header,
    PixelsError,
    refuse_bomb,
    turned,
    without_alpha,
)

# What Pillow is asked to recognise, whatever the name of the file ends in.
_FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF")
# Places in the first bytes of a PNG.
_PNG_BITS, _PNG_COLOUR, _PNG_HEAD = 24, 25, 26
_PNG_SEVERAL_CHANNELS = (2, 4, 6)  # RGB, grey with alpha, RGBA
_GREY_MODES = ("1", "L", "LA", "La", "F")


def read_header(path: Path) -> Header:
    """What the header tells, turned as the orientation says.

    Raises:
        Exception: nearly anything, if the header is damaged.
    """
    from PIL import Image

    with _opened(path) as image:
        wide = image.mode.startswith("I;") or image.mode == "I"
        several = not wide and image.mode not in _GREY_MODES
        deep = wide or _is_deep_png(path)
        # That of a PNG itself would decode the picture, to find what may stand behind the pixels.
        orientation = Image.Image.getexif(image).get(ORIENTATION, 1)
        return Header.of(several, deep, (image.height, image.width), orientation)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The picture by Pillow, of which only the header was read."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(path, formats=_FORMATS)
        except Image.DecompressionBombError as error:
            raise PixelsError(TOO_MANY) from error
        with image:
            refuse_bomb(image.width * image.height)
            yield image


def decode(path: Path) -> Decoded:
    """Reads all pixels of the first frame or page.

    Raises:
        Exception: nearly anything, if the file is damaged.
    """
    notes: list[str] = []
    with _opened(path) as image:
        orientation = image.getexif().get(ORIENTATION, 1)
        if image.format != "JPEG" and getattr(image, "n_frames", 1) > 1:
            notes.append(f"it has {image.n_frames} frames: the first was taken")
        if _is_deep_png(path):
            pixels = without_alpha(_deep_pixels(path), notes)
        else:
            pixels = np.array(_plain(image, notes))
    if pixels.dtype == bool:
        pixels = pixels.astype(np.uint8) * 255
    return Decoded(turned(pixels, orientation, notes), tuple(notes))


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
