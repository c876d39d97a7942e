"""The picture of a scan, read back as an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from scipy import ndimage

from screener_nnu.viewer.colours import draw_slice
from screener_nnu.viewer.preview import thumbnail, write_preview
from screener_nnu.viewer.write import write_viewer

# In each plane the rare place is on the patient's right, behind, near the feet; and the middle of
# the phantom's body is the middle of the picture.
SIDES = {"axial": ("left", "low"), "coronal": ("left", "low"), "sagittal": ("right", "low")}


def coloured(picture: np.ndarray) -> np.ndarray:
    """Where a picture is clearly no grey."""
    return np.ptp(picture.astype(int), axis=-1) > 60


@pytest.mark.parametrize("code", ["LPS", "RAI", "ASL"])
def test_the_rare_place_is_on_its_side_in_each_plane(
    phantom: Any, tmp_path: Path, code: str
) -> None:
    scan = phantom.turned(code)
    shown = write_viewer(tmp_path / "a.html", "a", scan.image, scan.score, scan.body, 20.0)
    for plane, (across, down) in SIDES.items():
        picture = draw_slice(shown, plane)
        rows, columns = np.nonzero(coloured(picture))
        assert rows.size == 9
        half = np.divide(picture.shape[:2], 2)
        assert ("left" if columns.mean() < half[1] else "right") == across
        assert ("low" if rows.mean() > half[0] else "high") == down


def test_the_picture_shows_three_planes_in_mm(phantom: Any, tmp_path: Path) -> None:
    shown = write_viewer(tmp_path / "a.html", "a", phantom.image, phantom.score, phantom.body, 20.0)
    path = tmp_path / "a.png"
    write_preview(path, "a $\\frac{x} \x01 \udcff <b>", shown)
    picture = np.asarray(Image.open(path).convert("RGB"))
    # The body, 64 x 48 x 63 mm, is the only thing of its grey; 40 HU in 400 around 40.
    body = np.abs(picture.astype(int) - 128).max(axis=-1) < 6
    body[:45], body[-45:] = False, False
    places = np.nonzero(body.any(axis=0))[0]
    parts = [p for p in np.split(places, np.nonzero(np.diff(places) > 25)[0] + 1) if p.size > 60]
    assert len(parts) == 3
    for columns, (wide, high) in zip(parts, ((64, 48), (64, 63), (48, 63)), strict=True):
        rows = np.nonzero(body[:, columns[0] : columns[-1]].any(axis=1))[0]
        ratio = np.ptp(columns) / np.ptp(rows)
        assert ratio == pytest.approx(wide / high, rel=0.06)
    # One mark a plane, of the size of 6 x 6 or 6 x 9 mm, and the colour bar.
    labels, _ = ndimage.label(coloured(picture[:, : parts[-1][-1]]))
    large = np.bincount(labels.reshape(-1))[1:]
    assert (large > 400).sum() == 3


def test_the_thumbnail_has_square_pixels(phantom: Any, tmp_path: Path) -> None:
    from base64 import b64decode
    from io import BytesIO

    shown = write_viewer(tmp_path / "a.html", "a", phantom.image, phantom.score, phantom.body)
    kind, data = thumbnail(shown).split(",")
    picture = Image.open(BytesIO(b64decode(data)))
    assert kind == "data:image/jpeg;base64" and picture.size == (180, 135)


@pytest.mark.parametrize(
    ("words", "label"),
    [
        ({}, "anomaly score (nats)"),
        ({"unit": "none"}, "anomaly score"),
        ({"unit": "$\\frac{x}\x01"}, "anomaly score ($\\frac{x}?)"),
    ],
)
def test_the_colour_bar_has_the_unit_of_the_scores(
    phantom: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: dict[str, str],
    label: str,
) -> None:
    texts: list[str] = []
    save = Figure.savefig

    def watched(figure: Figure, *arguments: Any, **options: Any) -> None:
        texts.extend(text.get_text() for text in figure.findobj(Text))
        save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", watched)
    images = (phantom.image, phantom.score, phantom.body)
    write_preview(tmp_path / "a.png", "a", write_viewer(tmp_path / "a.html", "a", *images, **words))
    assert [text for text in texts if text.startswith("anomaly score")] == [label]
