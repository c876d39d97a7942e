"""Maps of a whole volume from overlapping tiles, accumulated in float32.

Tiles start at multiples of the scorer's cell, so that the pooled maps of neighbouring tiles lie on
one grid: they are averaged there, and scores are interpolated to voxels once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from screener_nnu.plans import Shape


class Scorer(Protocol):
    """The student, or the networks of the teacher."""

    cell: Shape

    def __call__(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """(B, d, h, w) or (B, channels, d, h, w) on the cell grid of images (B, 1, D, H, W)."""


def tile_starts(length: int, tile: int, overlap: float, multiple: int) -> list[int]:
    """Starts of tiles along one axis: even steps of at most (1 - overlap) tiles.

    All are multiples of `multiple`, and the tiles cover the whole length.
    """
    if tile >= length:
        return [0]
    step = max(multiple, int(tile * (1 - overlap)))
    count = int(np.ceil((length - tile) / step)) + 1
    exact = np.linspace(0, length - tile, count)
    return sorted({int(round(e / multiple)) * multiple for e in exact})


def score_volume(
    scorer: Scorer,
    image: torch.Tensor,
    tile: Shape,
    overlap: float,
    divisor: Shape,
    pad_value: float,
) -> torch.Tensor:
    """Scores on the cell grid of a volume.

    Args:
        scorer: teacher or student, on the device of `image`.
        image: (D, H, W), what the scorer's network sees.
        tile: largest tile in voxels; a volume that fits is scored in one pass.
        overlap: of neighbouring tiles, as a fraction of the tile.
        divisor: multiple of the input's size that the network needs.
        pad_value: of the voxels that fill up the last tile.

    Returns:
        (d, h, w) float32, with d = ceil(D / cell) and so on; channels that the scorer gives come
        first.
    """
    multiple = np.lcm(divisor, scorer.cell)
    shape = np.array(image.shape)
    padded_shape = np.ceil(shape / multiple).astype(int) * multiple
    limits = np.maximum(np.array(tile) // multiple, 1) * multiple
    tile_shape = np.minimum(limits, padded_shape)
    padding = [int(p) for n in (padded_shape - shape)[::-1] for p in (0, n)]
    padded = F.pad(image[None, None].float(), padding, value=pad_value)

    grid_shape = tuple(int(n) for n in padded_shape // scorer.cell)
    total: torch.Tensor | None = None
    weight = torch.zeros(grid_shape, device=image.device)
    extent = torch.tensor(shape[None], device=image.device)
    for start in _starts(padded_shape, tile_shape, overlap, multiple):
        window = tuple(slice(a, a + n) for a, n in zip(start, tile_shape, strict=True))
        scores = scorer(
            padded[(slice(None), slice(None), *window)],
            torch.tensor([start], device=image.device),
            extent,
        )
        z, y, x = (
            slice(a // c, (a + n) // c)
            for a, n, c in zip(start, tile_shape, scorer.cell, strict=True)
        )
        if total is None:
            total = torch.zeros((*scores.shape[1:-3], *grid_shape), device=image.device)
        total[..., z, y, x] += scores[0].float()
        weight[z, y, x] += 1
    assert total is not None  # there is always a tile
    z, y, x = (slice(0, int(np.ceil(n / c))) for n, c in zip(shape, scorer.cell, strict=True))
    return (total / weight)[..., z, y, x]


def _starts(
    shape: np.ndarray, tile: np.ndarray, overlap: float, multiple: np.ndarray
) -> Iterator[tuple[int, ...]]:
    axes = (
        tile_starts(int(n), int(t), overlap, int(m))
        for n, t, m in zip(shape, tile, multiple, strict=True)
    )
    return product(*axes)


def cells_to_voxels(grid: torch.Tensor, cell: Shape, start: Shape, size: Shape) -> torch.Tensor:
    """Trilinear values at voxels start .. start + size of scores on the cell grid.

    Args:
        grid: (..., d, h, w) scores; cell i covers voxels i * cell .. (i + 1) * cell - 1.
        cell: voxels of a cell per axis.
        start: first voxel of the region, in voxels of the volume that the grid covers.
        size: of the region.

    Returns:
        (..., *size); beyond the centres of the outer cells the outer score is kept.
    """
    for axis, (c, a, n) in enumerate(zip(cell, start, size, strict=True)):
        if c == 1 and a + n <= grid.shape[axis - 3]:
            grid = grid.narrow(axis - 3, a, n)
            continue
        centre = (torch.arange(n, device=grid.device, dtype=torch.float32) + a + 0.5) / c - 0.5
        last = grid.shape[axis - 3] - 1
        centre = centre.clamp(0, last)
        low = centre.floor().long()
        high = (low + 1).clamp_max(last)
        view = [-1 if i == axis else 1 for i in range(3)]
        part = (centre - low).view(view)
        below, above = (grid.index_select(axis - 3, index) for index in (low, high))
        grid = below + (above - below) * part
    return grid
