"""One picture of a scan: three planes through the highest finding, and a thumbnail."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from screener_nnu.files import replacing
from screener_nnu.score_units import in_brackets
from screener_nnu.viewer.colours import PALETTES, PLANES, Shown, draw_slice

# Axes of SimpleITK across and down each plane, and the letters left, right, above and below.
_LAYOUT = {"axial": (0, 1, "RLAP"), "coronal": (0, 2, "RLHF"), "sagittal": (1, 2, "APHF")}
_HEIGHT, _FOOT, _BAR, _GAP = 4.6, 0.42, 0.95, 0.1
# Inches that the note below takes.
_NARROWEST = 5.4
_THUMBNAIL = 180
_INK, _SOFT, _LETTER, _LINE = "#e3e9ee", "#93a1ad", "#e8c66a", "#62ceff"
NOTE = "Research software, no medical device: a map shows what is rare, not what is ill."


def write_preview(path: Path, title: str, shown: Shown) -> None:
    """Writes a PNG with the three planes that the page of a scan shows first, or the picture."""
    # Imported here: it takes seconds, and not every page has a picture.
    from matplotlib.figure import Figure

    grid = shown.volumes.grid
    extent = np.multiply(grid.size, grid.spacing)
    # Planes are equally high and as wide as their mm say, but never slivers or banners.
    planes = PLANES[:1] if grid.is_picture else PLANES
    widths = [
        _HEIGHT * float(np.clip(extent[across] / extent[down], 0.45, 1.9))
        for across, down, _ in (_LAYOUT[plane] for plane in planes)
    ]
    full = max(sum(widths) + 2 * _GAP + _BAR, _NARROWEST)
    figure = Figure(figsize=(full, _HEIGHT + 2 * _FOOT), facecolor="black")
    width, height = figure.get_size_inches()
    left = 0.0
    for plane, share in zip(planes, widths, strict=True):
        box = (left / width, _FOOT / height, share / width, _HEIGHT / height)
        axis = figure.add_axes(box, facecolor="black")
        _draw(axis, plane, shown)
        left += share + _GAP
    _colour_bar(figure, shown, left)
    style: dict[str, Any] = {"va": "center", "parse_math": False}
    top, bottom = 1 - _FOOT / 2 / height, _FOOT / 2 / height
    figure.text(
        0.1 / width, top, _printable(title), color=_INK, size=11, weight="bold", ha="left", **style
    )
    figure.text(0.1 / width, bottom, NOTE, color=_SOFT, size=8.5, ha="left", **style)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, facecolor="black")


def _draw(axis: Any, plane: str, shown: Shown) -> None:
    across, down, letters = _LAYOUT[plane]
    size, spacing, voxel = shown.volumes.grid.size, shown.volumes.grid.spacing, shown.voxel
    wide, high = size[across] * spacing[across], size[down] * spacing[down]
    picture = draw_slice(shown, plane)
    axis.imshow(picture, extent=(0, wide, high, 0), interpolation="bilinear")
    column = (voxel[across] + 0.5) * spacing[across]
    row = (voxel[down] + 0.5) * spacing[down]
    row = row if plane == "axial" else high - row
    # Arms of the cross stay clear of the place itself.
    gap, line = 0.035 * max(wide, high), {"color": _LINE, "lw": 0.7, "alpha": 0.7}
    for ends in ((0, column - gap), (column + gap, wide)):
        axis.plot(ends, (row, row), **line)
    for ends in ((0, row - gap), (row + gap, high)):
        axis.plot((column, column), ends, **line)
    axis.set(xlim=(0, wide), ylim=(high, 0), aspect="equal", anchor="C")
    axis.set_axis_off()
    if shown.volumes.grid.is_picture:
        return
    places = ((0.015, 0.5), (0.985, 0.5), (0.5, 0.985), (0.5, 0.015))
    sides = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, place, (ha, va) in zip(letters, places, sides, strict=True):
        font = {"color": _LETTER, "size": 10, "weight": "bold", "ha": ha, "va": va}
        axis.text(*place, letter, transform=axis.transAxes, **font)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _colour_bar(figure: Any, shown: Shown, left: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    look = shown.look
    stops = [tuple(value / 255 for value in stop) for stop in PALETTES[look.palette]]
    colours = LinearSegmentedColormap.from_list(look.palette, stops)
    width, height = figure.get_size_inches()
    place = (left / width, 0.24, 0.14 / width, 0.52)
    bar = figure.colorbar(
        ScalarMappable(Normalize(*look.colours), colours), cax=figure.add_axes(place)
    )
    label = _printable(f"anomaly score{in_brackets(shown.unit)}")
    bar.set_label(label, color=_INK, size=9, parse_math=False)
    bar.ax.tick_params(colors=_INK, labelsize=8.5)
    bar.outline.set_edgecolor(_SOFT)
    if look.colours[0] < look.threshold < look.colours[1]:
        bar.ax.axhline(look.threshold, color="white", lw=1.5)
        # Below the threshold nothing is coloured.
        bar.ax.axhspan(look.colours[0], look.threshold, color="black", alpha=0.65, lw=0)


def thumbnail(shown: Shown) -> str:
    """The axial slice that the page shows first as a data URI, with square pixels."""
    from PIL import Image

    picture = Image.fromarray(draw_slice(shown, "axial"))
    grid = shown.volumes.grid
    extent = np.multiply(grid.size, grid.spacing)[:2]
    size = np.maximum(np.rint(_THUMBNAIL * extent / extent.max()), 1).astype(int)
    small = picture.resize((int(size[0]), int(size[1])), Image.Resampling.LANCZOS)
    stream = BytesIO()
    small.save(stream, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{b64encode(stream.getvalue()).decode()}"
