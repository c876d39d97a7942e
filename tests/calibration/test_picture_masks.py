"""Annotations of pictures are found by name, at any depth, as the pictures are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.calibration.scans import find_masks, read_mask
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.images import find_images
from screener_nnu.preprocessing.pictures import write_picture
from tests.made_pictures import HEIGHT, WIDTH, write


def test_masks_of_pictures(tmp_path: Path) -> None:
    for name in ("a_0000.png", "left/b.png", "c.png"):
        write(tmp_path / "in" / name)
    images = find_images(tmp_path / "in")
    (tmp_path / "masks").mkdir()
    with pytest.raises(ScreenerError, match=r"has the name of a scan, such as a\.png"):
        find_masks(tmp_path / "masks", images)
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[3:5, 7] = 255
    (tmp_path / "masks" / "left").mkdir()
    write_picture(pixels, tmp_path / "masks" / "left" / "b.png")
    masks = find_masks(tmp_path / "masks", images)
    assert list(masks) == ["left_b"]
    reference = sitk.Image([WIDTH, HEIGHT, 1], sitk.sitkFloat32)
    reference.SetSpacing((1, 1, 999))
    np.testing.assert_array_equal(read_mask(masks["left_b"], "b", reference)[0], pixels > 0)
