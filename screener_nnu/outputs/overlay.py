"""A picture in its own size with its map over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.viewer.colours import palette_colours
from screener_nnu.viewer.picture import Pixels, shown_pixels

if TYPE_CHECKING:
    from screener_nnu.calibration.record import Calibration
    from screener_nnu.outputs.extras import MappedCase

# Lightness rises evenly in it, so that it can be read without telling colours apart.
_PALETTE = "viridis"
_HIGHEST_COVER = 0.65
# Of held-out pixels one of 10 lies above the first, where colour begins, one of 10,000 above the
# last: equal steps are equal factors of rarity.
_RAREST = (1.0, 4.0)
# Lines are one pixel wide in pictures up to this size, two in those of twice as much.
_LINE_SIZE = 800
# White on black is seen on any ground; the border of the body is to be seen less.
_THRESHOLD_LINE, _CASING, _BODY_LINE = (255, 255, 255), (0, 0, 0), (120, 200, 255)


def make_overlay(of: MappedCase) -> None:
    """Writes `<case>_overlay.png`."""
    score, inside = (
        sitk.GetArrayViewFromImage(image)[0] for image in (of.result.score, of.result.body)
    )
    request = of.request
    drawn = draw_overlay(
        shown_pixels(of.raw.array), score, inside != 0, request.threshold, request.calibration
    )
    write_picture(np.moveaxis(drawn, -1, 0), of.path("_overlay.png"))


def draw_overlay(
    picture: Pixels,
    score: NDArray[np.float32],
    body: NDArray[np.bool_],
    threshold: float | None = None,
    calibration: Calibration | None = None,
) -> Pixels:
    """The picture with colours that cover the more the rarer a score is, and with borders.

    Args:
        picture: red, green and blue, (H, W, 3).
        score: map, (H, W).
        body: where it counts, (H, W).
        threshold: has a white line around what lies above it.
        calibration: colours begin at percentile 90 of held-out pixels; without it at the median of
            this picture, and are fullest at its highest score, which is there in any picture.
    """
    place = np.where(body, _places(score, body, calibration), 0).astype(np.float32)
    codes = np.rint(place * 255).astype(np.uint8)
    colours = palette_colours(_PALETTE, np.linspace(0, 1, 256)).astype(np.float32)
    cover = (_HIGHEST_COVER * place)[..., None]
    drawn = np.rint(picture + cover * (colours[codes] - picture)).astype(np.uint8)
    width = max(round(max(body.shape) / _LINE_SIZE), 1)
    drawn[_rim(body, width)] = _BODY_LINE
    if threshold is not None:
        above = body & (score > threshold)
        drawn[_around(above, 2 * width)] = _CASING
        drawn[_around(above, width)] = _THRESHOLD_LINE
    return drawn


def _places(
    score: NDArray[np.float32], body: NDArray[np.bool_], calibration: Calibration | None
) -> NDArray[np.floating]:
    """Places on the palette, 0 to 1."""
    if calibration is not None:
        common, rarest = _RAREST
        share = np.maximum(1 - calibration.percentile(score) / 100, 10.0**-rarest)
        return np.clip((-np.log10(share) - common) / (rarest - common), 0, 1)
    inside = score[body]
    if not inside.size:
        return np.zeros_like(score)
    low, high = float(np.median(inside)), float(inside.max())
    return np.clip((score - low) / ((high - low) or 1.0), 0, 1)


def _rim(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The outermost pixels of a mask, but for where the picture itself ends."""
    return mask & ~ndimage.binary_erosion(mask, iterations=width, border_value=1)


def _around(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Pixels next to a mask: what lies in it stays to be seen."""
    return ndimage.binary_dilation(mask, iterations=width) & ~mask
