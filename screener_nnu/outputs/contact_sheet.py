"""The pictures with the highest and the lowest case scores on one sheet, made of stored files."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screener_nnu.errors import CaseError
from screener_nnu.files import replacing
from screener_nnu.outputs.products import CONTACT_SHEET, product_file
from screener_nnu.preprocessing.pictures import read_picture
from screener_nnu.preprocessing.reading import Source
from screener_nnu.viewer.picture import shown_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

#: Pictures from either end of the table.
SHOWN = 12
_COLUMNS, _SIDE, _GAP, _TEXT, _HEAD = 3, 220, 12, 36, 44
_GROUND, _EMPTY, _INK, _SOFT = "#14181c", "#20262c", "#e3e9ee", "#93a1ad"
_NOTES = (
    "Left the picture, right its map over it: {colours}, a white line around what is above the "
    "threshold, a blue one around the body.",
    "Research software, no medical device: a map shows what is rare, not what is ill.",
)
_CALIBRATED = "colours from percentile 90 to 99.99 of held-out pixels"
_UNCALIBRATED = "colours from the median to the highest score of each picture"


@dataclass(frozen=True)
class _Entry:
    """A row of the table whose overlay is there."""

    case: str
    overlay: Path
    caption: str
    calibrated: bool


def write_contact_sheet(
    table: Path, images: Mapping[str, Source], number: int = SHOWN
) -> Path | None:
    """Writes `contact_sheet.png` beside the table: each overlay beside its picture.

    Args:
        table: `cases.csv`, the highest score first, in the folder of the overlays.
        images: pictures by case name; of others only the overlay is shown.
        number: most pictures from either end of the table.

    Returns:
        The sheet, or None where no picture has an overlay.
    """
    highest, lowest = _ends(table, number)
    if not highest:
        return None
    parts = [("Highest scores", highest), ("Lowest scores", lowest)]
    parts = [(title, entries) for title, entries in parts if entries]
    sheet = _sheet(parts, images)
    with replacing(table.with_name(CONTACT_SHEET)) as temporary:
        sheet.save(temporary, format="PNG")
    return table.with_name(CONTACT_SHEET)


def _ends(table: Path, number: int) -> tuple[list[_Entry], list[_Entry]]:
    """The first and the last of the table, none twice; the last one first."""
    total = sum(1 for _ in _entries(table))
    first = list(islice(_entries(table), min(number, (total + 1) // 2)))
    last = deque(_entries(table), maxlen=min(number, total // 2))
    return first, list(reversed(last))


def _entries(table: Path) -> Iterator[_Entry]:
    with table.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            overlay = product_file(table.parent, row["case"], "_overlay.png")
            if row["peak_score"] and overlay.is_file():
                calibrated = bool(row["case_percentile"])
                yield _Entry(row["case"], overlay, _caption(row), calibrated)


def _caption(row: Mapping[str, str]) -> str:
    if not row["case_score"]:
        return f"peak {float(row['peak_score']):.4g}"
    text = f"score {float(row['case_score']):.4g}"
    if row["case_percentile"]:
        text += f", percentile {float(row['case_percentile']):.1f}"
    return text


def _sheet(parts: list[tuple[str, list[_Entry]]], images: Mapping[str, Source]) -> Image:
    from PIL import Image, ImageDraw

    wide, high = 2 * _SIDE, _SIDE + _TEXT
    lines = [-(-len(entries) // _COLUMNS) for _, entries in parts]
    width = _GAP + _COLUMNS * (wide + 2 * _GAP)
    height = sum(_HEAD + rows * (high + _GAP) for rows in lines) + 20 * len(_NOTES) + 20
    sheet = Image.new("RGB", (width, height), _GROUND)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for (title, entries), rows in zip(parts, lines, strict=True):
        _write(draw, title, (_GAP, top + 14), wide, 18, _INK)
        top += _HEAD
        for i, entry in enumerate(entries):
            left = _GAP + i % _COLUMNS * (wide + 2 * _GAP)
            _place(sheet, entry, images.get(entry.case), left, top + i // _COLUMNS * (high + _GAP))
        top += rows * (high + _GAP)
    colours = _CALIBRATED if parts[0][1][0].calibrated else _UNCALIBRATED
    for i, note in enumerate(_NOTES):
        place = (_GAP, top + 10 + 20 * i)
        _write(draw, note.format(colours=colours), place, width - 2 * _GAP, 13, _SOFT)
    return sheet


def _place(sheet: Image, entry: _Entry, source: Source | None, left: int, top: int) -> None:
    """Pastes a picture, its overlay to the right of it, and name and score below."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    for i, small in enumerate((_picture(source, entry.case), _overlay(entry.overlay))):
        x = left + i * (_SIDE + 2)
        draw.rectangle((x, top, x + _SIDE - 1, top + _SIDE - 1), fill=_EMPTY)
        if small is None:
            _write(draw, "picture not at hand", (x + 50, top + _SIDE // 2), _SIDE, 13, _SOFT)
            continue
        sheet.paste(small, (x + (_SIDE - small.width) // 2, top + (_SIDE - small.height) // 2))
    _write(draw, entry.case, (left, top + _SIDE + 2), 2 * _SIDE, 13, _INK)
    _write(draw, entry.caption, (left, top + _SIDE + 19), 2 * _SIDE, 13, _SOFT)


def _picture(source: Source | None, case: str) -> Image | None:
    from PIL import Image

    if not isinstance(source, Path):
        return None
    try:
        pixels = read_picture(source, case).pixels
    except CaseError:  # it has gone since, and its overlay is shown alone
        return None
    return _small(Image.fromarray(shown_pixels(pixels)))


def _overlay(path: Path) -> Image | None:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _small(image.convert("RGB"))
    except OSError:
        return None


def _small(image: Image) -> Image:
    """As large as fits, also where the picture is smaller."""
    from PIL.Image import Resampling

    factor = _SIDE / max(image.size)
    size = (max(round(image.width * factor), 1), max(round(image.height * factor), 1))
    return image.resize(size, Resampling.LANCZOS if factor < 1 else Resampling.NEAREST)


def _write(
    draw: Any, text: str, place: tuple[int, int], width: int, size: int, colour: str
) -> None:
    """One line of text; the middle of one that is too long is left out."""
    from matplotlib import font_manager
    from PIL import ImageFont

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    shown, kept = text, len(text)
    while draw.textlength(shown, font=font) > width and kept > 2:
        kept -= 2
        shown = f"{text[: kept // 2]}\u2026{text[-(kept // 2) :]}"
    draw.text(place, shown, font=font, fill=colour)
