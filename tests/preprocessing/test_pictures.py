"""Pictures of every kind, and what is said of those that cannot be read."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.ownership import own_folder
from screener_nnu.preprocessing.picture_pixels import MAX_PIXELS
from screener_nnu.preprocessing.pictures import (
    is_picture,
    picture_header,
    picture_shape,
    read_picture,
    write_picture,
)

GENERATOR = np.random.default_rng(5)
GREY = GENERATOR.integers(0, 256, (12, 9), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (12, 9, 3), dtype=np.uint8)
GREY_16 = GENERATOR.integers(0, 65536, (12, 9), dtype=np.uint16)
COLOUR_16 = GENERATOR.integers(0, 65536, (12, 9, 3), dtype=np.uint16)
ALL = {"grey": GREY, "colour": COLOUR, "grey 16": GREY_16, "colour 16": COLOUR_16}


def channels_first(pixels: np.ndarray) -> np.ndarray:
    return pixels[np.newaxis] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def check(path: Path, expected: np.ndarray) -> tuple[str, ...]:
    """Compares pixels, type and header; gives the notes."""
    picture = read_picture(path, "x")
    np.testing.assert_array_equal(picture.pixels, channels_first(expected))
    assert picture.pixels.dtype == expected.dtype
    assert picture_shape(path) == picture.pixels.shape
    assert picture_header(path, "x").bits == picture.stored_bits
    return picture.notes


@pytest.mark.parametrize("kind", ALL)
def test_written_pictures_are_read_again(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    write_picture(channels_first(ALL[kind]), path)
    assert check(path, ALL[kind]) == ()
    assert os.listdir(tmp_path) == ["a.png"]
    if kind != "colour 16":  # of which Pillow has 8 bits alone
        np.testing.assert_array_equal(np.asarray(Image.open(path)), ALL[kind])


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"theirs")
    own_folder(tmp_path)
    with pytest.raises(ScreenerError, match="not ours"):
        write_picture(GREY, path)
    assert path.read_bytes() == b"theirs"


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "zlib", "predictor": True},
        {"byteorder": ">"},
        {"tile": (16, 16)},
        {"bigtiff": True},
    ],
    ids=str,
)
def test_tiff(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    path = tmp_path / "a.TIF"
    tifffile.imwrite(path, ALL[kind], **options)
    assert check(path, ALL[kind]) == ()


@pytest.mark.parametrize("kind", ["colour", "colour 16"])
def test_tiff_of_separate_planes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tif"
    planes = channels_first(ALL[kind])
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    check(path, ALL[kind])


@pytest.mark.parametrize("ending", ["bmp", "png"])
def test_pillow_formats(tmp_path: Path, ending: str) -> None:
    for pixels in (GREY, COLOUR):
        Image.fromarray(pixels).save(tmp_path / f"a.{ending}")
        check(tmp_path / f"a.{ending}", pixels)


def test_jpeg(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=100)
    difference = read_picture(tmp_path / "a.jpg", "a").pixels[0].astype(int) - smooth
    assert abs(difference).max() <= 2


def test_the_content_tells_and_not_the_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.png", GREY)
    check(tmp_path / "a.png", GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    """Pillow's own turning is the oracle; 16 bits in colour and TIFF do not go through Pillow."""
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    notes = check(tmp_path / "a.png", expected)
    assert bool(notes) == (orientation > 1)
    tags = [(0x0112, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", COLOUR, extratags=tags, metadata=None)
    assert check(tmp_path / "a.tif", expected) == notes


def test_what_is_converted_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    alpha = GENERATOR.integers(0, 256, (12, 9, 1), dtype=np.uint8)
    Image.fromarray(np.concatenate([COLOUR, alpha], axis=2)).save(path)
    assert check(path, COLOUR) == ("its alpha channel was dropped",)
    Image.fromarray(np.stack([GREY, alpha[..., 0]], axis=2)).save(path)
    assert check(path, GREY) == ("its alpha channel was dropped",)
    palette = Image.fromarray(COLOUR).quantize(200)
    palette.save(path)
    assert check(path, np.asarray(palette.convert("RGB"))) == ("its palette was converted to RGB",)
    Image.fromarray(GREY > 99).save(path)
    assert check(path, np.where(GREY > 99, 255, 0).astype(np.uint8)) == (
        "its 1 bit became 0 and 255",
    )
    inks = Image.fromarray(COLOUR).convert("CMYK")
    inks.save(tmp_path / "a.jpg")
    expected = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    assert check(tmp_path / "a.jpg", expected) == ("CMYK was converted to RGB",)
    tifffile.imwrite(tmp_path / "a.tif", np.asarray(inks), photometric="separated")
    assert check(tmp_path / "a.tif", COLOUR) == ("CMYK was converted to RGB",)


def test_what_a_tiff_converts(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    alpha = np.concatenate([COLOUR_16, GREY_16[..., None]], axis=2)
    tifffile.imwrite(path, alpha, photometric="rgb", extrasamples=["unassalpha"])
    assert check(path, COLOUR_16) == ("its alpha channel was dropped",)
    tifffile.imwrite(path, GREY_16, photometric="miniswhite")
    assert "inverted" in check(path, 65535 - GREY_16)[0]
    colours = GENERATOR.integers(0, 256, (3, 256), dtype=np.uint16)
    tifffile.imwrite(path, GREY, photometric="palette", colormap=colours * 257)
    expected = np.moveaxis(colours[:, GREY], 0, -1).astype(np.uint8)
    assert check(path, expected) == ("its palette was converted to RGB",)
    tifffile.imwrite(path, GREY > 99, photometric="minisblack")
    assert check(path, np.where(GREY > 99, 255, 0).astype(np.uint8)) == (
        "its 1 bit became 0 and 255",
    )
    tifffile.imwrite(path, GREY > 99, photometric="miniswhite")
    expected = np.asarray(Image.open(path).convert("L"))
    assert "inverted" in check(path, expected)[1]
    tifffile.imwrite(path, GREY_16.astype(np.int32))
    check(path, GREY_16)


def test_the_first_of_several(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert check(tmp_path / "a.png", GREY) == ("it has 2 frames: the first was taken",)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY_16, GREY_16 + 1]), photometric="minisblack")
    assert check(tmp_path / "a.tif", GREY_16) == ("it has 2 pages: the first was taken",)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([GREY_16, GREY_16, GREY_16]), imagej=True)
    assert check(tmp_path / "b.tif", GREY_16) == ("it has 3 pages: the first was taken",)


def test_grey_stored_as_colour_stays_colour(tmp_path: Path) -> None:
    Image.fromarray(np.repeat(GREY[..., None], 3, axis=2)).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png", "a").pixels.shape == (3, 12, 9)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_with_values_of_8(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    low = GREY.astype(np.uint16)
    if name == "a.png":
        write_picture(low, path)
    else:
        tifffile.imwrite(path, low)
    picture = read_picture(path, "a")
    assert picture.pixels.dtype == np.uint8 and picture.stored_bits == 16
    np.testing.assert_array_equal(picture.pixels[0], GREY)
    assert "read as 8 bit" in picture.notes[0]


def png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_nothing(path: Path) -> None:
    path.write_bytes(b"")


def write_text(path: Path) -> None:
    path.write_text("no picture " * 50)


def write_column(path: Path) -> None:
    Image.fromarray(GREY[:, :1]).save(path, format="PNG")


def write_row_tiff(path: Path) -> None:
    tifffile.imwrite(path, GREY[:1])


def write_float(path: Path) -> None:
    tifffile.imwrite(path, GREY.astype(np.float32))


def write_nan(path: Path) -> None:
    tifffile.imwrite(path, np.full((5, 5), np.nan, np.float32))


def write_negative(path: Path) -> None:
    tifffile.imwrite(path, GREY.astype(np.int16) - 5)


def write_bomb(path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 9
    path.write_bytes(png(side, side, b""))


def write_huge_bomb(path: Path) -> None:
    path.write_bytes(png(2**30, 2**30, b""))


def write_tiff_bomb(path: Path) -> None:
    write_row_tiff(path)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags["ImageLength"].overwrite(2**30)


def write_constant(path: Path) -> None:
    Image.fromarray(np.full((9, 9), 77, np.uint8)).save(path, format="PNG")


def write_constant_colour(path: Path) -> None:
    Image.fromarray(np.full((9, 9, 3), (7, 8, 9), np.uint8)).save(path, format="PNG")


def write_five_channels(path: Path) -> None:
    tifffile.imwrite(path, np.stack([GREY] * 5, axis=2), photometric="minisblack", planarconfig=1)


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (write_nothing, "the file is empty"),
        (write_text, "it is no PNG, JPG, BMP or TIFF"),
        (write_column, "has only 1 x 12 pixels"),
        (write_row_tiff, "has only 9 x 1 pixels"),
        (write_float, "floating-point"),
        (write_nan, "floating-point"),
        (write_negative, "beyond 16 bits"),
        (write_bomb, "it claims more than 179 million pixels"),
        (write_huge_bomb, "it claims more than 179 million pixels"),
        (write_tiff_bomb, "million pixels"),
        (write_constant, "the same value everywhere"),
        (write_constant_colour, "the same value everywhere"),
        (write_five_channels, "5 channels"),
    ],
)
def test_bad_pictures(tmp_path: Path, write: Callable[[Path], None], words: str) -> None:
    path = tmp_path / "bad.png"
    write(path)
    with pytest.raises(CaseError, match=words) as caught:
        read_picture(path, "the case")
    assert str(caught.value).startswith("the case: ") and str(path) in caught.value.reason
    # What to do stands after the colon.
    assert caught.value.reason.rpartition(": ")[2].startswith(("replace", "save"))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="no such file"):
        read_picture(tmp_path / "a.png", "a")


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind in ALL for name in ("a.png", "a.tif")]
    + [(kind, name) for kind in ("grey", "colour") for name in ("a.bmp", "a.jpg")],
)
def test_cut_short(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    pixels = np.tile(ALL[kind], (5, 5) if ALL[kind].ndim == 2 else (5, 5, 1))
    if name == "a.tif":
        tifffile.imwrite(path, pixels)
    elif name == "a.png":
        write_picture(channels_first(pixels), path)
    else:
        Image.fromarray(pixels).save(path)
    whole = path.read_bytes()
    for part in (len(whole) * 9 // 10, len(whole) // 2, 60, 20, 3):
        path.write_bytes(whole[:part])
        with pytest.raises(CaseError):
            read_picture(path, "a")


@pytest.mark.parametrize("kind", ["grey", "colour 16"])
def test_damage_within_a_png(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    write_picture(channels_first(ALL[kind]), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(CaseError, match="cannot be read"):
        read_picture(path, "a")


def test_masks_may_be_constant(tmp_path: Path) -> None:
    write_constant(tmp_path / "a.png")
    pixels = read_picture(tmp_path / "a.png", "a", may_be_constant=True).pixels
    np.testing.assert_array_equal(pixels, np.full((1, 9, 9), 77))


def test_names(tmp_path: Path) -> None:
    path = tmp_path / "Größe 1 (ä).PNG"
    write_picture(GREY, path)
    check(path, GREY)
    assert is_picture(path) and is_picture(Path("a.JpEg")) and not is_picture(Path("a.dcm"))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/b\xe4r.png"))
    odd.write_bytes(path.read_bytes())
    with pytest.raises(CaseError, match="not valid UTF-8: rename it"):
        read_picture(odd, "odd")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(CaseError, match="pipe"):
        read_picture(tmp_path / "pipe.png", "pipe")
