"""MR as pages show it, which know a window of HU, while MR has no unit."""

from __future__ import annotations

from dataclasses import replace

from screener_nnu.preprocessing.modality import MR, tissue_range
from screener_nnu.preprocessing.reading import RawImage
from screener_nnu.viewer.colours import Look

_WIDTH, _LEVEL = Look.window


def as_shown(raw: RawImage) -> RawImage:
    """MR whose background and bright tissue are black and white of a page; other scans unchanged.

    Args:
        raw: a scan as it was read for prediction.
    """
    if raw.modality != MR:
        return raw
    low, high = tissue_range(raw.array)
    scaled = _LEVEL + _WIDTH * ((raw.array - low) / (high - low) - 0.5)
    return replace(raw, array=scaled)
