"""What readers of picture files share: the stored pixels, how they are turned, and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

#: More pixels than this are taken for a file that unpacks to fill the memory; as in Pillow.
MAX_PIXELS = 178_956_970
TOO_MANY = f"it claims more than {MAX_PIXELS / 1e6:.0f} million pixels"
#: Tag of EXIF and TIFF that says how a picture is to be turned.
ORIENTATION = 0x0112


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


@dataclass(frozen=True)
class Header:
    """What the header of a picture tells: channels (1 or 3), size (pixels) and bits (8 or 16)."""

    channels: int
    rows: int
    columns: int
    bits: int

    @classmethod
    def of(cls, several: bool, deep: bool, size: tuple[int, int], orientation: int) -> Header:
        """The header of a picture that is turned when it is read.

        Args:
            several: whether it has the channels of colours.
            deep: whether it has more than 8 bits.
            size: rows and columns as stored.
            orientation: as EXIF and TIFF define it, from 1 to 8.
        """
        rows, columns = size[::-1] if orientation in range(5, 9) else size
        return cls(3 if several else 1, rows, columns, 16 if deep else 8)


def refuse_bomb(pixels: int) -> None:
    """Refuses more pixels than `MAX_PIXELS`.

    Raises:
        PixelsError: there are more.
    """
    if pixels > MAX_PIXELS:
        raise PixelsError(TOO_MANY)


def without_alpha(pixels: NDArray[Any], notes: list[str]) -> NDArray[Any]:
    """Pixels (H, W) or (H, W, C) without alpha; a note says so.

    Raises:
        PixelsError: the channels are neither those of grey nor of RGB.
    """
    if pixels.ndim == 2 or pixels.shape[-1] in (1, 3):
        return pixels
    if pixels.shape[-1] not in (2, 4):
        raise PixelsError(f"it has {pixels.shape[-1]} channels: save it as grey or RGB")
    notes.append("its alpha channel was dropped")
    return pixels[..., :-1]


def turned(pixels: NDArray[Any], orientation: int, notes: list[str]) -> NDArray[Any]:
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
