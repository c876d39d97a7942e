"""Cells on a grid against maps of all voxels, and the channels that are kept."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from screener_nnu.descriptors.cells import average_cells, padded_to
from screener_nnu.descriptors.kept_channels import draw_channels, of_each_map

STRIDES = [(1, 1, 1), (1, 2, 4), (4, 3, 2), (2, 6, 5)]
POOLINGS = [(1, 1, 1), (2, 2, 2), (2, 3, 3), (4, 1, 6)]


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("stride", STRIDES)
def test_equals_pooling_of_the_spread_cells(
    stride: tuple[int, int, int], pooling: tuple[int, int, int]
) -> None:
    shape = (9, 13, 12)
    count = [-(-n // s) for n, s in zip(shape, stride, strict=True)]
    cells = torch.randn(2, 3, *count, generator=torch.Generator().manual_seed(1))
    z, y, x = (torch.arange(n) // s for n, s in zip(shape, stride, strict=True))
    expected = F.avg_pool3d(cells[:, :, z][:, :, :, y][..., x], pooling)
    found = average_cells(cells, stride, shape, pooling)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected)


def test_autocast_leaves_the_precision_alone() -> None:
    cells = torch.randn(1, 2, 4, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = average_cells(cells, (2, 2, 2), (8, 8, 8), (4, 4, 4))
    assert torch.equal(found, average_cells(cells, (2, 2, 2), (8, 8, 8), (4, 4, 4)))


def test_an_image_is_filled_up_behind_each_axis() -> None:
    image = torch.rand(2, 1, 3, 5, 8) + 1
    filled = padded_to(image, (2, 4, 8), -7.0)
    assert filled.shape == (2, 1, 4, 8, 8)
    assert torch.equal(filled[:, :, :3, :5], image)
    assert (filled[:, :, 3:] == -7).all() and (filled[:, :, :, 5:] == -7).all()
    assert padded_to(image, (3, 5, 2)) is image


def test_channels_are_drawn_once_from_all_maps() -> None:
    kept = draw_channels(30, 12, seed=4)
    assert len(kept.unique()) == 12 and torch.equal(kept, kept.sort().values)
    assert torch.equal(kept, draw_channels(30, 12, seed=4))
    assert not torch.equal(kept, draw_channels(30, 12, seed=5))
    state = torch.get_rng_state()
    draw_channels(30, 12, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(draw_channels(5, 0, 1), torch.arange(5))
    assert torch.equal(draw_channels(5, 9, 1), torch.arange(5))
    widths = [7, 1, 10, 12]
    parts = of_each_map(kept, widths)
    offsets = [0, 7, 8, 18]
    joined = torch.cat([part + first for part, first in zip(parts, offsets, strict=True)])
    assert torch.equal(joined, kept)
    assert all((p < n).all() for p, n in zip(parts, widths, strict=True))


def test_every_channel_may_be_drawn() -> None:
    drawn = torch.cat([draw_channels(10, 3, seed) for seed in range(100)])
    assert torch.equal(drawn.unique(), torch.arange(10))
