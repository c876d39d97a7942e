"""Tiles cover, sums are exact, and cells become voxels as torch interpolates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from screener_nnu.inference.sliding_window import cells_to_voxels, score_volume
from screener_nnu.inference.tiles import tile_starts
from screener_nnu.plans import Shape

torch.set_num_threads(1)


class Voxelwise:
    """A score that depends on each voxel alone; notes what it was given."""

    def __init__(self, cell: Shape = (1, 1, 1)) -> None:
        self.cell = cell
        self.calls: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = []

    def __call__(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        assert image.shape[:2] == (1, 1) and start.shape == extent.shape == (1, 3)
        where = tuple(start[0].tolist()), tuple(extent[0].tolist())
        self.calls.append((where[0], tuple(image.shape[2:]), where[1]))
        return F.avg_pool3d(3 * image[:, 0] + 1, self.cell)


def volume(shape: Shape, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75, 0.9])
@pytest.mark.parametrize("multiple", [1, 4, 12])
def test_tiles_cover_everything_from_multiples(overlap: float, multiple: int) -> None:
    for cells in range(1, 40):
        for tile_cells in (1, 2, 3, 7):
            length, tile = cells * multiple, tile_cells * multiple
            starts = tile_starts(length, tile, overlap, multiple)
            assert starts == sorted(set(starts)) and starts[0] == 0
            assert all(start % multiple == 0 for start in starts)
            if tile >= length:
                assert starts == [0]
                continue
            assert starts[-1] + tile == length
            # No gap, and no wider steps than the overlap allows, to the next multiple.
            step = max(int(np.diff(starts).max(initial=0)), 0)
            assert step <= tile
            assert step < max(tile * (1 - overlap), multiple) + multiple


def test_half_overlap_of_even_tiles_takes_the_textbook_starts() -> None:
    assert tile_starts(128, 32, 0.5, 8) == [0, 16, 32, 48, 64, 80, 96]
    assert tile_starts(128, 32, 0.0, 8) == [0, 32, 64, 96]
    # Even steps: 72 - 32 = 40 in three steps of 13.3, to the next multiple of 8.
    assert tile_starts(72, 32, 0.5, 8) == [0, 16, 24, 40]


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.8])
@pytest.mark.parametrize("tile", [(8, 8, 8), (8, 16, 12), (99, 16, 99), (99, 99, 99)])
def test_voxelwise_score_is_exact_for_any_tiling(tile: Shape, overlap: float) -> None:
    image, scorer = volume((21, 33, 19)), Voxelwise()
    result = score_volume(scorer, image, tile, overlap, (4, 4, 4), pad_value=0.0)
    assert result.shape == image.shape and result.dtype == torch.float32
    torch.testing.assert_close(result, 3 * image + 1)
    for _, size, extent in scorer.calls:
        assert all(n % 4 == 0 for n in size)
        assert extent == image.shape  # of the volume, without what was padded
    assert (len(scorer.calls) == 1) == (min(tile) > 33)


@pytest.mark.parametrize("tile", [(6, 12, 12), (12, 12, 18), (99, 99, 99)])
def test_cells_of_a_volume_are_those_of_one_pass(tile: Shape) -> None:
    cell = (1, 2, 3)
    image = volume((12, 24, 36))
    result = score_volume(Voxelwise(cell), image, tile, 0.5, (2, 4, 2), pad_value=0.0)
    expected = F.avg_pool3d(3 * image[None] + 1, cell)[0]
    torch.testing.assert_close(result, expected)


def test_tiles_start_at_multiples_of_divisor_and_cell() -> None:
    scorer = Voxelwise((1, 2, 3))
    score_volume(scorer, volume((20, 40, 50)), (10, 10, 16), 0.4, (4, 4, 4), pad_value=0.0)
    assert len(scorer.calls) > 8
    for start, size, _ in scorer.calls:
        assert all(a % m == 0 for a, m in zip(start, (4, 4, 12), strict=True))
        assert size == (8, 8, 12)  # the largest multiple within the tile


def test_a_tile_below_one_multiple_grows_to_it() -> None:
    scorer = Voxelwise()
    score_volume(scorer, volume((16, 16, 16)), (2, 3, 4), 0.5, (8, 8, 8), pad_value=0.0)
    assert {size for _, size, _ in scorer.calls} == {(8, 8, 8)}


def test_padding_has_the_given_value_and_is_cut_off() -> None:
    seen = []

    class Sees(Voxelwise):
        def __call__(
            self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
        ) -> torch.Tensor:
            seen.append(image)
            return super().__call__(image, start, extent)

    image = volume((5, 6, 7))
    result = score_volume(Sees((1, 1, 2)), image, (99, 99, 99), 0.5, (4, 4, 4), pad_value=-7.5)
    assert result.shape == (5, 6, 4)
    (padded,) = seen
    assert padded.shape == (1, 1, 8, 8, 8)
    torch.testing.assert_close(padded[0, 0, :5, :6, :7], image)
    outside = torch.ones(8, 8, 8, dtype=torch.bool)
    outside[:5, :6, :7] = False
    assert (padded[0, 0][outside] == -7.5).all()


def test_overlapping_tiles_are_averaged_with_equal_weight() -> None:
    """Each tile scores its own number: a voxel gets the mean over the tiles it lies in."""
    numbers = iter(range(1, 100))
    tiles: list[tuple[int, ...]] = []

    class Numbers(Voxelwise):
        def __call__(
            self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
        ) -> torch.Tensor:
            tiles.append(tuple(start[0].tolist()))
            return torch.full(image.shape[:1] + image.shape[2:], float(next(numbers)))

    result = score_volume(Numbers(), volume((4, 20, 16)), (4, 8, 8), 0.5, (4, 4, 4), 0.0)
    total, weight = np.zeros((4, 20, 16)), np.zeros((4, 20, 16))
    for number, (z, y, x) in enumerate(tiles, 1):
        total[z : z + 4, y : y + 8, x : x + 8] += number
        weight[z : z + 4, y : y + 8, x : x + 8] += 1
    assert weight.min() == 1 and weight.max() == 4
    np.testing.assert_allclose(result.numpy(), total / weight, rtol=1e-6)


def test_half_precision_scores_are_summed_in_float32() -> None:
    """Sums of float16 lose the ones of 2049; averages of exact numbers must stay exact."""

    class Half(Voxelwise):
        def __call__(
            self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
        ) -> torch.Tensor:
            return torch.full(image.shape[:1] + image.shape[2:], 1025.0, dtype=torch.float16)

    result = score_volume(Half(), volume((16, 16, 16)).half(), (8, 8, 8), 0.75, (2, 2, 2), 0.0)
    assert result.dtype == torch.float32 and (result == 1025).all()


@pytest.mark.parametrize("cell", [(1, 1, 1), (2, 3, 3), (1, 4, 2), (5, 1, 1)])
def test_cells_to_voxels_equals_interpolate(cell: Shape) -> None:
    grid = volume((4, 5, 6))
    size = tuple(n * c for n, c in zip(grid.shape, cell, strict=True))
    expected = F.interpolate(grid[None, None], size, mode="trilinear", align_corners=False)[0, 0]
    result = cells_to_voxels(grid, cell, (0, 0, 0), size)  # type: ignore[arg-type]
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-6)


def test_any_region_is_that_part_of_the_whole() -> None:
    grid, cell = volume((4, 5, 6)).expand(2, 3, 4, 5, 6), (2, 3, 1)
    whole = cells_to_voxels(grid, cell, (0, 0, 0), (8, 15, 6))
    assert whole.shape == (2, 3, 8, 15, 6)
    generator = np.random.default_rng(0)
    for _ in range(20):
        start = generator.integers(0, (8, 15, 6))
        size = [
            int(generator.integers(1, n - a + 1)) for a, n in zip(start, (8, 15, 6), strict=True)
        ]
        start = tuple(int(a) for a in start)
        part = (..., *(slice(a, a + n) for a, n in zip(start, size, strict=True)))
        result = cells_to_voxels(grid, cell, start, tuple(size))  # type: ignore[arg-type]
        torch.testing.assert_close(result, whole[part], rtol=0, atol=1e-6)


def test_one_cell_is_constant() -> None:
    grid = torch.full((1, 1, 1), 3.5)
    assert (cells_to_voxels(grid, (4, 4, 4), (0, 0, 0), (4, 4, 4)) == 3.5).all()
