"""The sheet: which images stand in it, and what is outlined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.synthetic.medmix import medmix
from screener_nnu.synthetic.shift_preview import (
    PreviewColumn,
    preview_columns,
    shown_slice,
    write_sheet,
)
from screener_nnu.synthetic.shifts import SHIFTS


def test_columns_are_classes_each_with_a_view(world: Any) -> None:
    images = torch.rand(3, 1, 10, 12, 14, generator=torch.Generator().manual_seed(0))
    bodies = torch.ones(3, 10, 12, 14)
    plan = world.plan()
    columns = preview_columns(images, bodies, SHIFTS["medmix"], 3, plan, 5)
    titles = [column.title for column in columns]
    assert titles == ["no patch", "weak view", "1 patch", "weak view", "2 patches", "weak view"]
    assert torch.equal(columns[0].images, images) and not columns[0].masks.any()
    for label, column in enumerate(columns[2::2], start=1):
        generator = torch_generator(torch.device("cpu"), 5, "preview", label)
        settings = plan.settings.pretext.medmix
        expected, masks = medmix(images, label, generator, settings, bodies)
        assert torch.equal(column.images, expected) and torch.equal(column.masks, masks)
    for column in columns[1::2]:
        assert column.images.shape == images.shape and column.masks.dtype == torch.uint8
    other = preview_columns(images, bodies, SHIFTS["medmix"], 2, plan, 6)
    assert not torch.equal(other[2].masks, columns[2].masks)
    named = preview_columns(images, bodies, SHIFTS["noise"], 2, plan, 5)
    assert [column.title for column in named[::2]] == ["class 0", "class 1"]


@pytest.mark.parametrize("colours", [1, 3])
def test_sheet_shows_images_and_outlines(tmp_path: Path, colours: int) -> None:
    """Dark pictures, an outline around the patch of the second column alone."""
    images = torch.full((2, colours, 1, 20, 20), 0.2)
    masks = torch.zeros(2, 1, 1, 20, 20, dtype=torch.uint8)
    marked = masks.clone()
    marked[..., 5:15, 5:15] = 2
    everywhere = torch.ones_like(masks)
    columns = [
        PreviewColumn(t, images, m) for t, m in zip("abc", (masks, marked, everywhere), strict=True)
    ]
    write_sheet(tmp_path / "sheet.png", "title", ["one", "two"], columns, 1.0)
    pixels = imread(tmp_path / "sheet.png")[..., :3]
    thirds = np.array_split(pixels, 3, axis=1)
    orange = [int(((p[..., 0] > 0.8) & (p[..., 2] < 0.2)).sum()) for p in thirds]
    assert orange[0] == orange[2] == 0 and orange[1] > 100
    assert ((np.abs(pixels - 0.2) < 0.01).all(-1)).mean() > 0.3


def test_the_slice_with_most_patch_is_shown() -> None:
    mask = np.zeros((7, 6, 6), np.uint8)
    assert shown_slice(mask) == 3
    assert shown_slice(np.ones_like(mask)) == 3
    mask[1, :2], mask[5, :4] = 1, 2
    assert shown_slice(mask) == 5
