"""Colours of scores, and a slice with the map over it: the same in pages and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from screener_nnu.score_units import NATS
from screener_nnu.viewer.grid import Volumes

# Lightness rises evenly in both, so that they can be read without telling colours apart. None ends
# in white, which is bone.
PALETTES: dict[str, list[tuple[int, int, int]]] = {
    "fire": [(128, 0, 38), (182, 14, 36), (226, 52, 28), (248, 112, 16), (255, 172, 28)]
    + [(255, 226, 64)],
    "viridis": [(68, 1, 84), (64, 67, 135), (41, 120, 142), (34, 167, 132), (121, 209, 81)]
    + [(253, 231, 36)],
}
# Rare places cover more than those just above the threshold: from this part of the opacity.
LEAST_COVER = 0.55
PLANES = ("axial", "coronal", "sagittal")


@dataclass(frozen=True)
class Look:
    """How slices are drawn.

    Attributes:
        threshold: scores below are not shown.
        colours: scores at both ends of the palette.
        window: width and level (HU, or values of a picture).
        opacity: of the map, 0 to 1.
        palette: name of the colours.
    """

    threshold: float
    colours: tuple[float, float]
    window: tuple[float, float] = (400.0, 40.0)
    opacity: float = 0.6
    palette: str = "fire"


@dataclass(frozen=True)
class Shown:
    """A scan as its page shows it first.

    Attributes:
        volumes: scan or picture and its map, in LPS.
        voxel: (x, y, z) that the planes go through.
        look: how they are drawn.
        unit: of the scores, `none` where they have none.
    """

    volumes: Volumes
    voxel: tuple[int, ...]
    look: Look
    unit: str = NATS


def slice_of(array: np.ndarray, plane: str, voxel: tuple[int, ...]) -> np.ndarray:
    """A plane through a voxel (x, y, z) of an LPS array, in radiological convention.

    The patient's right is on the left of axial and coronal slices, the front on top of axial and
    on the left of sagittal ones, the head on top of the others.
    """
    x, y, z = voxel
    if plane == "axial":
        return array[z]
    return array[::-1, y, :] if plane == "coronal" else array[::-1, :, x]


def palette_colours(name: str, places: np.ndarray) -> np.ndarray:
    """Colours (0 to 255) at places between 0 and 1, `(..., 3)`."""
    stops = np.asarray(PALETTES[name], dtype=float)
    at = np.clip(places, 0, 1) * (len(stops) - 1)
    return np.stack([np.interp(at, np.arange(len(stops)), channel) for channel in stops.T], axis=-1)


def draw_slice(shown: Shown, plane: str) -> np.ndarray:
    """Red, green and blue of a slice, uint8 (rows, columns, 3)."""
    volumes, look, voxel = shown.volumes, shown.look, shown.voxel
    hu, score, body = (
        slice_of(array, plane, voxel) for array in (volumes.hu, volumes.score, volumes.body)
    )
    width, level = look.window
    grey = np.clip((hu - level) / width + 0.5, 0, 1) * 255
    if grey.ndim == 2:
        grey = grey[..., None]
    low, high = look.colours
    place = np.clip((score - low) / (high - low), 0, 1)
    cover = look.opacity * (LEAST_COVER + (1 - LEAST_COVER) * place)
    cover = np.where(body & (score >= look.threshold), cover, 0)[..., None]
    mixed = grey + cover * (palette_colours(look.palette, place) - grey)
    return np.rint(mixed).astype(np.uint8)
