"""Tiles that the body needs: leaving out the others must not change a voxel of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.inference.sliding_window import cells_to_voxels, score_volume
from screener_nnu.inference.tile_memory import largest_tile
from screener_nnu.inference.tiles import (
    Tiling,
    needed_cells,
    needed_voxels,
    voxels_of_cells,
)
from screener_nnu.plans import Shape
from screener_nnu.preprocessing.resampling import resample_mask_to_shape, resample_to_shape

torch.set_num_threads(1)


class Blurs:
    """A score that normalises over its tile and looks at neighbours, as the UNets do."""

    def __init__(self, cell: Shape = (1, 1, 1), channels: int = 0) -> None:
        self.cell = cell
        self.tiles = 0
        torch.manual_seed(3)
        self.convolution = nn.Conv3d(1, channels or 1, 5, padding=2)
        self.channels = channels

    @torch.no_grad()
    def __call__(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        self.tiles += len(image)
        maps = self.convolution(F.instance_norm(image))
        maps = F.avg_pool3d(maps, self.cell)
        return maps if self.channels else maps[:, 0]


def volume(shape: Shape, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def body_in_a_corner(shape: Shape) -> np.ndarray:
    """Two boxes that leave most of a volume empty."""
    z, y, x = shape
    body = np.zeros(shape, np.uint8)
    body[: z // 3, y // 4 : y // 3, 1 : x // 4] = 1
    body[z // 3 : z // 2, y // 2 : y // 2 + 2, x - 3 :] = 1
    return body


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
@pytest.mark.parametrize("cell", [(1, 1, 1), (1, 2, 2)])
def test_overlapping_tiles_equal_a_loop_in_double(overlap: float, cell: Shape) -> None:
    image, scorer = volume((21, 27, 38)), Blurs(cell)
    result = score_volume(scorer, image, (8, 12, 16), overlap, (4, 4, 4), pad_value=0.5)
    padded = np.full((24, 28, 40), 0.5)
    padded[:21, :27, :38] = image.numpy()
    total, weight = np.zeros(padded.shape), np.zeros(padded.shape)
    kernel = scorer.convolution.weight.detach().double()
    bias = scorer.convolution.bias
    assert bias is not None
    tiling = Tiling.of((21, 27, 38), (8, 12, 16), overlap, np.array([4, 4, 4]))
    assert tiling.padded == padded.shape and len(tiling.starts) > 12
    for z, y, x in tiling.starts:
        part = padded[z : z + 8, y : y + 12, x : x + 16]
        part = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
        score = F.conv3d(torch.from_numpy(part)[None, None], kernel, bias.double(), padding=2)
        score = F.interpolate(F.avg_pool3d(score, cell), part.shape, mode="nearest")
        total[z : z + 8, y : y + 12, x : x + 16] += score[0, 0].detach().numpy()
        weight[z : z + 8, y : y + 12, x : x + 16] += 1
    wanted = (total / weight)[:21, :27, :38]
    wanted = wanted[:: cell[0], :: cell[1], :: cell[2]]
    np.testing.assert_allclose(result.numpy(), wanted, rtol=1e-4, atol=1e-5)


def test_skipped_tiles_leave_the_needed_voxels_bit_for_bit() -> None:
    image, shape = volume((40, 44, 52)), (40, 44, 52)
    needed = body_in_a_corner(shape) > 0
    full, some = Blurs(), Blurs()
    whole = score_volume(full, image, (16, 16, 16), 0.5, (4, 4, 4), 0.0)
    result = score_volume(some, image, (16, 16, 16), 0.5, (4, 4, 4), 0.0, needed)
    assert some.tiles < 0.6 * full.tiles
    assert torch.equal(result[torch.from_numpy(needed)], whole[torch.from_numpy(needed)])
    assert torch.isfinite(result).all()


def test_batches_give_the_same_scores_and_places() -> None:
    image = volume((20, 28, 36))
    one, many = Blurs(channels=3), Blurs(channels=3)
    single = score_volume(one, image, (8, 12, 16), 0.5, (4, 4, 4), 0.0)
    result = score_volume(many, image, (8, 12, 16), 0.5, (4, 4, 4), 0.0, batch=5)
    assert one.tiles == many.tiles and one.tiles % 5
    torch.testing.assert_close(result, single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("grid", [(9, 14, 11), (23, 9, 30), (16, 16, 16), (5, 40, 7)])
@pytest.mark.parametrize("storage", [(16, 16, 16), (11, 21, 8)])
def test_needed_voxels_hold_all_that_the_body_is_interpolated_from(
    grid: Shape, storage: Shape
) -> None:
    """Whatever stands elsewhere must not reach the body of the scan."""
    body, box = body_in_a_corner(storage), (31, 37, 43)
    needed = needed_voxels(body, grid)
    inside = resample_mask_to_shape(body, box) > 0
    scores = np.random.default_rng(0).normal(size=grid).astype(np.float32)
    poisoned = np.where(needed, scores, 1e6).astype(np.float32)
    wanted, result = resample_to_shape(scores, box), resample_to_shape(poisoned, box)
    assert inside.any() and not needed.all()
    np.testing.assert_allclose(result[inside], wanted[inside], atol=1e-5)


@pytest.mark.parametrize("reach", [0, 2])
@pytest.mark.parametrize("cell", [(1, 2, 3), (2, 2, 2)])
def test_needed_cells_hold_all_that_voxels_depend_on(cell: Shape, reach: int) -> None:
    shape = (20, 27, 33)
    needed = body_in_a_corner(shape) > 0
    cells = needed_cells(needed, cell, reach)
    grid = volume(tuple(-(-n // c) for n, c in zip(shape, cell, strict=True)))  # type: ignore[arg-type]
    poisoned = torch.where(torch.from_numpy(cells), grid, 1e6)
    # A density that looks `reach` cells around.
    width = 2 * reach + 1

    def spread(maps: torch.Tensor) -> torch.Tensor:
        summed = F.avg_pool3d(maps[None, None], width, stride=1, padding=reach)[0, 0]
        return cells_to_voxels(summed, cell, (0, 0, 0), shape)

    assert not cells.all()
    inside = torch.from_numpy(needed)
    torch.testing.assert_close(spread(poisoned)[inside], spread(grid)[inside])
    assert voxels_of_cells(cells, cell, shape).shape == shape
    assert voxels_of_cells(cells, cell, shape)[needed].all()


def test_tiles_shrink_only_as_far_as_memory_asks() -> None:
    divisor = np.array([8, 16, 16])
    assert largest_tile((40, 64, 96), divisor, 40 * 64 * 96) == (40, 64, 96)
    assert largest_tile((40, 64, 96), divisor, 40 * 64 * 96 - 1) == (40, 64, 80)
    assert largest_tile((40, 64, 96), divisor, 1) == (8, 16, 16)
    for voxels in range(3000, 250_000, 9000):
        tile = largest_tile((44, 64, 96), divisor, voxels)
        assert np.prod(tile) <= voxels
        assert tile == (44, 64, 96) or all(
            n % d == 0 or n == 44 for n, d in zip(tile, divisor, strict=True)
        )


def test_a_volume_of_one_multiple_is_padded_to_two() -> None:
    # A network whose deepest level is a single position has nothing to normalise it by.
    multiple = np.array([4, 8, 8])
    assert Tiling.of((3, 8, 5), (16, 16, 16), 0.5, multiple).padded == (4, 8, 16)
    assert Tiling.of((5, 8, 5), (16, 16, 16), 0.5, multiple).padded == (8, 8, 8)
