"""The one way in which a 2D picture (PNG, JPG, BMP, TIFF) is read from a file and written as PNG.

What is damaged, holds no whole numbers, or shows nothing is an error of its case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, printable
from screener_nnu.files import replacing
from screener_nnu.preprocessing import pillow_pictures, tiff_pictures
from screener_nnu.preprocessing.picture_pixels import Header, PixelsError
from screener_nnu.preprocessing.volumes import WAY_OUT, check_name, shown_path

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")

_SMALLEST_SIDE = 2
_COMPRESSION = 1  # of 9: a tenth larger than the usual 6, and several times as fast


Result = TypeVar("Result")


@dataclass(frozen=True)
class Picture:
    """A picture, with what had to be changed.

    Attributes:
        pixels: (C, H, W), uint8 or uint16, with C = 1 for grey and 3 for RGB.
        notes: sentences about what was changed, such as a dropped alpha channel.
        stored_bits: 8 or 16, as the file has it; a file of 16 bits may hold values of 8.
    """

    pixels: NDArray[Any]
    notes: tuple[str, ...] = ()
    stored_bits: int = 8


def is_picture(path: Path | str) -> bool:
    """Whether a path ends as those of pictures do, in upper or lower case."""
    return str(path).lower().endswith(PICTURE_ENDINGS)


def read_picture(path: Path, case: str, *, may_be_constant: bool = False) -> Picture:
    """Reads the first frame or page of a picture.

    Orientations of EXIF and TIFF are applied, palettes and CMYK converted, alpha is dropped. Grey
    that is stored as RGB stays RGB. A file of 16 bits whose values fit into 8 gives uint8.

    Args:
        path: PNG, JPG, BMP or TIFF; what it is says its content, not its name.
        case: name used in messages.
        may_be_constant: whether one single value is no error, as in a mask.

    Raises:
        CaseError: it is no picture, damaged, cut short, larger than `MAX_PIXELS`, less than 2
            pixels wide or high, or of floating-point values, or it shows nothing.
    """
    decoded = _checked(path, case, lambda: _reader(path).decode(path))
    pixels, notes = decoded.pixels, list(decoded.notes)
    pixels = pixels[np.newaxis] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    _check_size(path, case, pixels.shape)
    pixels = _whole_numbers(path, case, pixels)
    bits = 8 * pixels.dtype.itemsize
    if bits == 16 and pixels.max() <= np.iinfo(np.uint8).max:
        notes.append("its values fit into 8 of its 16 bits, and were read as 8 bit")
        pixels = pixels.astype(np.uint8)
    if not may_be_constant:
        refuse_constant(pixels, path, case)
    return Picture(np.ascontiguousarray(pixels), tuple(notes), bits)


def refuse_constant(pixels: NDArray[Any], path: Path, case: str) -> None:
    """Refuses pixels (C, H, W) that show nothing.

    Raises:
        CaseError: all have the same colour.
    """
    if (pixels == pixels[:, :1, :1]).all():
        raise CaseError(case, f"{shown_path(path)} has the same value everywhere: {WAY_OUT}")


def picture_shape(path: Path) -> tuple[int, int, int]:
    """Channels, rows and columns (C, H, W) that `read_picture` gives, from the header.

    Raises:
        CaseError: as for `read_picture`, as far as a header tells.
    """
    header = picture_header(path, printable(path.stem))
    return header.channels, header.rows, header.columns


def picture_header(path: Path, case: str) -> Header:
    """What the header of a picture tells.

    Raises:
        CaseError: as for `read_picture`, as far as a header tells.
    """
    header = _checked(path, case, lambda: _reader(path).read_header(path))
    _check_size(path, case, (header.rows, header.columns))
    return header


def write_picture(pixels: NDArray[Any], path: Path) -> None:
    """Writes a PNG, whole or not at all.

    Args:
        pixels: (H, W), (1, H, W) or (3, H, W), uint8 or uint16.
        path: ends in `.png`.

    Raises:
        OutputError: the file cannot be written.
        ScreenerError: another file of that name is not ours.
    """
    from PIL import Image

    if pixels.ndim == 3:
        pixels = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)
    pixels = np.ascontiguousarray(pixels)
    with replacing(path) as temporary:
        if pixels.ndim == 3 and pixels.dtype == np.uint16:  # which Pillow does not know
            writer = sitk.ImageFileWriter()
            writer.SetImageIO("PNGImageIO")
            writer.SetFileName(str(temporary))
            writer.UseCompressionOn()
            writer.SetCompressionLevel(_COMPRESSION)
            writer.Execute(sitk.GetImageFromArray(pixels, isVector=True))
        else:
            Image.fromarray(pixels).save(temporary, format="PNG", compress_level=_COMPRESSION)


def _reader(path: Path) -> ModuleType:
    """The module that reads a file, by what it holds and not by its name."""
    return tiff_pictures if tiff_pictures.is_tiff(path) else pillow_pictures


def _checked(path: Path, case: str, read: Callable[[], Result]) -> Result:
    """What `read` gives; its errors as those of a case."""
    check_name(path, case)
    try:
        if not path.stat().st_size:
            raise PixelsError("the file is empty")
        return read()
    except MemoryError:
        raise
    except PixelsError as error:
        reason = str(error)
    except FileNotFoundError:
        reason = "there is no such file"
    # A damaged file raises nearly anything, from SyntaxError to struct.error.
    except Exception as error:
        reason = _cause(error)
    raise CaseError(case, f"{shown_path(path)} cannot be read ({reason}): {WAY_OUT}")


def _cause(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    if "cannot identify image file" in reason:
        return "it is no PNG, JPG, BMP or TIFF"
    if "truncated" in reason.lower() or "end of file" in reason.lower():
        return "it is cut short"
    return reason


def _check_size(path: Path, case: str, shape: tuple[int, ...]) -> None:
    rows, columns = shape[-2:]
    if min(rows, columns) < _SMALLEST_SIDE:
        raise CaseError(case, f"{shown_path(path)} has only {columns} x {rows} pixels: {WAY_OUT}")


def _whole_numbers(path: Path, case: str, pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels as uint8 or uint16."""
    if pixels.dtype.kind not in "iu":
        raise CaseError(
            case,
            f"{shown_path(path)} holds floating-point values, but a picture holds whole numbers "
            "of 8 or 16 bits: save it so, or give it as a NIfTI volume",
        )
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    least, most = int(pixels.min()), int(pixels.max())
    if least < 0 or most > np.iinfo(np.uint16).max:
        raise CaseError(
            case,
            f"{shown_path(path)} holds values from {least} to {most}, beyond 16 bits (0 to 65535): "
            "save it with 8 or 16 bits",
        )
    return pixels.astype(np.uint16)
