"""MR on pages: seen in the window that a page begins with."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.preprocessing.modality import tissue_range
from screener_nnu.preprocessing.reading import to_raw_image
from screener_nnu.viewer.colours import Look
from screener_nnu.viewer.encoding import encode_hu
from screener_nnu.viewer.magnetic import as_shown


def scan(modality: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    array = np.full((20, 30, 40), 0.0 if modality == "mr" else -1000.0)
    array[4:16, 6:24, 8:32] = rng.uniform(20, 200, (12, 18, 24))
    return array


@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_background_is_black_and_bright_tissue_white(scale: float) -> None:
    image = sitk.GetImageFromArray(scale * scan("mr"))
    raw = to_raw_image(image, "a", modality="mr")
    shown = as_shown(raw)
    width, level = Look.window
    low, high = tissue_range(raw.array)
    expected = np.interp(raw.array, [low, high], [level - width / 2, level + width / 2])
    inside = (raw.array >= low) & (raw.array <= high)
    np.testing.assert_allclose(shown.array[inside], expected[inside], atol=0.01)
    # Unscaled, a page would have one grey.
    assert len(np.unique(encode_hu(shown.array))) > 100
    assert shown.geometry == raw.geometry and shown.spacing == raw.spacing


def test_ct_is_shown_as_it_is() -> None:
    raw = to_raw_image(sitk.GetImageFromArray(scan("ct")), "a")
    assert as_shown(raw) is raw
