"""Which tiles a volume is cut into, and which of them the body needs.

A voxel of the map depends on the tiles that hold it. Where every voxel that the map of the body is
interpolated from is marked as needed, and every tile that holds a needed voxel is computed, the map
of the body is that of all tiles: their sums have the same terms in the same order. Tiles in the air
around it only cost time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from screener_nnu.plans import Shape


@dataclass(frozen=True)
class Tiling:
    """Overlapping tiles of one size that cover a padded volume.

    Attributes:
        padded: shape of the volume with its padding, multiples of what the network needs.
        tile: shape of a tile.
        starts: first voxel of each tile.
    """

    padded: Shape
    tile: Shape
    starts: tuple[Shape, ...]

    @classmethod
    def of(cls, shape: Shape, largest: Shape, overlap: float, multiple: np.ndarray) -> Tiling:
        """Tiles of a volume.

        Args:
            shape: of the volume.
            largest: tile in voxels; an axis that fits is one tile.
            overlap: of neighbouring tiles, as a fraction of the tile.
            multiple: per axis, of padded shape, tile and starts.
        """
        padded = -(-np.array(shape) // multiple) * multiple
        if (padded == multiple).all():
            # The network's deepest level would be one position, which it cannot normalise.
            padded[-1] += multiple[-1]
        tile = np.minimum(np.maximum(np.array(largest) // multiple, 1) * multiple, padded)
        axes = (
            tile_starts(int(n), int(t), overlap, int(m))
            for n, t, m in zip(padded, tile, multiple, strict=True)
        )
        return cls(_triple(padded), _triple(tile), tuple(product(*axes)))  # type: ignore[arg-type]

    def window(self, start: Shape) -> tuple[slice, slice, slice]:
        """The voxels of a tile."""
        z, y, x = (slice(a, a + n) for a, n in zip(start, self.tile, strict=True))
        return z, y, x

    def holding(self, needed: np.ndarray) -> Tiling:
        """Only the tiles that hold a needed voxel (D, H, W), in the same order."""
        kept = tuple(start for start in self.starts if needed[self.window(start)].any())
        return Tiling(self.padded, self.tile, kept)


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


def needed_voxels(body: np.ndarray, shape: Shape) -> np.ndarray:
    """Voxels of the plan's grid that the map of the body is interpolated from.

    A voxel of the scan lies in the body when the mask's voxel under its centre does; its score
    comes from the two voxels of the plan's grid beside its centre, per axis.

    Args:
        body: mask (z, y, x) on the storage grid, which covers the same box.
        shape: of the plan's grid.

    Returns:
        bool, `shape`.
    """
    needed = body > 0
    for axis, (size, target) in enumerate(zip(body.shape, shape, strict=True)):
        # Mask voxel s spans [s, s + 1) / size; grid voxel g is read between the centres beside it.
        grid = np.arange(target)
        first = np.ceil((grid - 0.5) * size / target - 1e-6).astype(int) - 1
        last = np.floor((grid + 1.5) * size / target + 1e-6).astype(int)
        needed = _any_between(needed, axis, first, last)
    return needed


def needed_cells(voxels: np.ndarray, cell: Shape, reach: int) -> np.ndarray:
    """Cells that the scores of voxels depend on.

    Scores of cells are interpolated to voxels, so a voxel reads its own cell or a neighbour; the
    density of a cell looks at `reach` cells around it.

    Args:
        voxels: needed voxels (D, H, W).
        cell: voxels of a cell per axis.
        reach: of the density, in cells.

    Returns:
        bool, (ceil(D / cell), ...).
    """
    needed = voxels
    for axis, edge in enumerate(cell):
        index = np.arange(-(-voxels.shape[axis] // edge))
        margin = reach + 1 if edge > 1 else reach
        first, last = (index - margin) * edge, (index + margin + 1) * edge - 1
        needed = _any_between(needed, axis, first, last)
    return needed


def voxels_of_cells(cells: np.ndarray, cell: Shape, shape: Shape) -> np.ndarray:
    """The voxels (`shape`) of marked cells."""
    z, y, x = (np.arange(n) // edge for n, edge in zip(shape, cell, strict=True))
    return cells[z][:, y][:, :, x]


def _any_between(marked: np.ndarray, axis: int, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Whether anything is marked between two positions of an axis, both included."""
    size = marked.shape[axis]
    below = np.cumsum(marked, axis=axis, dtype=np.int32)
    below = np.concatenate([np.zeros_like(below.take([0], axis)), below], axis)
    low, high = np.clip(first, 0, size), np.clip(last + 1, 0, size)
    return below.take(high, axis) > below.take(low, axis)


def _triple(values: np.ndarray) -> Shape:
    z, y, x = (int(v) for v in values)
    return z, y, x
