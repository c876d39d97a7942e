"""Maps of a whole volume from overlapping tiles, accumulated in float32.

Tiles start at multiples of the scorer's cell, so that the pooled maps of neighbouring tiles lie on
one grid: they are averaged there, and scores are interpolated to voxels once, at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from screener_nnu.inference.tiles import Tiling
from screener_nnu.plans import Shape
from screener_nnu.sampling.crops import as_batch


@dataclass(frozen=True)
class Part:
    """Where an image lies in the scan that it is a part of, which a condition may ask for.

    Attributes:
        start: its first voxel.
        extent: size of the whole scan.
    """

    start: Shape
    extent: Shape


class Scorer(Protocol):
    """The student, or the networks of the teacher."""

    cell: Shape

    def __call__(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """(B, d, h, w) or (B, channels, d, h, w) on the cell grid of images (B, 1, D, H, W)."""


def score_volume(
    scorer: Scorer,
    image: torch.Tensor,
    tile: Shape,
    overlap: float,
    divisor: Shape,
    pad_value: float,
    needed: np.ndarray | None = None,
    batch: int = 1,
    part: Part | None = None,
) -> torch.Tensor:
    """Scores on the cell grid of a volume.

    Args:
        scorer: teacher or student, on the device of `image`.
        image: (D, H, W) or (C, D, H, W), what the scorer's network sees.
        tile: largest tile in voxels; a volume that fits is scored in one pass.
        overlap: of neighbouring tiles, as a fraction of the tile.
        divisor: multiple of the input's size that the network needs.
        pad_value: of the voxels that fill up the last tile.
        needed: (D, H, W) voxels whose scores are asked for, see `tiles.py`; all of them by default.
            Elsewhere a score may be that of fewer tiles, or 0.
        batch: tiles that are given to the scorer at once.
        part: of which scan the image is a part; by default it is the whole scan.

    Returns:
        (d, h, w) float32, with d = ceil(D / cell) and so on; channels that the scorer gives come
        first.
    """
    whole: Shape = tuple(image.shape[-3:])  # type: ignore[assignment]
    tiling = Tiling.of(whole, tile, overlap, np.lcm(divisor, scorer.cell))
    if needed is not None and needed.any():
        tiling = tiling.holding(needed)
    padding = [int(p) for n, m in zip(tiling.padded, whole, strict=True) for p in (n - m, 0)]
    padded = F.pad(as_batch(image), padding[::-1], value=pad_value)
    mean = _mean_of_tiles(scorer, padded, tiling, batch, part or Part((0, 0, 0), whole))
    z, y, x = (slice(0, -(-n // c)) for n, c in zip(whole, scorer.cell, strict=True))
    return mean[..., z, y, x]


def _mean_of_tiles(
    scorer: Scorer, padded: torch.Tensor, tiling: Tiling, batch: int, part: Part
) -> torch.Tensor:
    """Scores on the cell grid of a padded image (1, C, D, H, W); 0 where there is no tile."""
    device, cells = padded.device, np.array(scorer.cell)
    offset = torch.tensor(part.start, device=device)
    grid_shape = tuple(int(n) for n in np.array(tiling.padded) // cells)
    total: torch.Tensor | None = None
    weight = torch.zeros(grid_shape, device=device)
    for starts in _batches(tiling.starts, batch):
        images = torch.cat([padded[(..., *tiling.window(start))] for start in starts])
        extent = torch.tensor([part.extent] * len(starts), device=device)
        scores = scorer(images, torch.tensor(starts, device=device) + offset, extent)
        if total is None:
            total = torch.zeros((*scores.shape[1:-3], *grid_shape), device=device)
        for start, score in zip(starts, scores, strict=True):
            first = np.array(start) // cells
            z, y, x = (slice(a, a + n) for a, n in zip(first, score.shape[-3:], strict=True))
            total[..., z, y, x] += score.float()
            weight[z, y, x] += 1
    assert total is not None  # there is always a tile
    return total / weight.clamp_min(1)


def _batches(starts: tuple[Shape, ...], size: int) -> Iterator[tuple[Shape, ...]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]


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
