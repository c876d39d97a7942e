"""Where the body is: its bounding box in a scan, and the mask of its voxels, lungs included.

Array axes are (z, y, x), z along the body; spacings likewise (mm); intensities are HU.
This file is copied beside exported networks, so it needs NumPy and SciPy alone.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

Spacing = tuple[float, float, float]
Slices = tuple[slice, slice, slice]

# Parts (legs, arms) with less dense volume than this share of the largest are not body.
_SMALLEST_PART = 0.02
# A table is a shell around foam: a part with a smaller share of dense voxels is not body.
_DENSE_SHARE = 0.5
# Tissue of this length (mm) along a side of a slice is a wall of the body.
_WALL_MM = 15.0
# Edge (mm) of the grid on which parts are told apart.
_PART_GRID_MM = 4.0


def body_box(image_hu: np.ndarray, spacing: Spacing, threshold: float, block_mm: float) -> Slices:
    """Bounding box of the dense body, in voxels.

    A block is dense when its *minimum* is, so that the thin shell of a table and specks vanish
    (Goncharov et al., ICLR 2026). Of what remains, parts of some size count, with all that hangs
    together with them. The box is grown by one block a side, because blocks that the skin crosses
    are not dense.

    Args:
        image_hu: HU, (z, y, x).
        spacing: voxel size (mm).
        threshold: HU from which a voxel is dense.
        block_mm: edge of a block (mm).

    Returns:
        A slice per axis. When no block is dense: the box of all dense voxels; without any, the
        whole image.
    """
    block = [max(1, round(block_mm / size)) for size in spacing]
    dense = _reduce(np.minimum, image_hu, block) >= threshold
    if not dense.any():
        voxels = image_hu >= threshold
        return _extent(voxels if voxels.any() else np.ones_like(voxels))
    # A thin chest wall does not outlast the opening that tells parts apart: take it back.
    parts = ndimage.binary_propagation(_parts(dense, dense.astype(np.float64)), mask=dense)
    z, y, x = (
        slice(max(0, (blocks.start - 1) * edge), min((blocks.stop + 1) * edge, n))
        for blocks, edge, n in zip(_extent(parts), block, image_hu.shape, strict=True)
    )
    return z, y, x


def body_mask(image_hu: np.ndarray, spacing: Spacing, threshold: float = -500.0) -> np.ndarray:
    """Voxels of the body: those that outside air cannot reach, without table and specks.

    The air is flooded *slice by slice*, from the four sides of each axial slice. In three
    dimensions it would enter nose and mouth and empty the lungs, or enter them through the first
    or last slice; in the plane lungs and trachea are closed. What stays outside by that rule: an
    air-filled space that opens in the same slice (nostrils, an open mouth), and lung that the
    circle of a small field of view cuts open, in the slices where it does.

    Parts that hang together over less than about 1 cm (body and table) are told apart on a grid
    of about 4 mm; a part is kept when it is dense and of some size, as legs and arms are.

    Args:
        image_hu: HU, (z, y, x).
        spacing: voxel size (mm).
        threshold: HU below which a voxel is air.

    Returns:
        bool, same shape.
    """
    inside = np.empty(image_hu.shape, dtype=bool)
    for z, plane in enumerate(image_hu):
        inside[z] = ~_reached_from_sides(plane < threshold, spacing[1:])
    if not inside.any():
        return inside
    edges = [max(1, round(_PART_GRID_MM / size)) for size in spacing]
    share = _share(inside, edges)
    dense = _share(image_hu >= threshold, edges)
    parts = _near(_parts(share >= 0.5, dense))
    rows = [np.arange(n) // edge for n, edge in zip(image_hu.shape, edges, strict=True)]
    return inside & parts[np.ix_(*rows)]


def _reached_from_sides(air: np.ndarray, spacing: tuple[float, float]) -> np.ndarray:
    """Air of one axial slice (y, x) that touches a side of it, through air in the plane.

    Where the field of view cuts through the chest, lung touches a side between two walls; so air
    between thick tissue of one side is no way in, while the thin shell of a table is ignored.
    """
    labels, count = ndimage.label(air)
    outside = np.zeros(count + 1, dtype=bool)
    along_x = [(labels[0], spacing[1]), (labels[-1], spacing[1])]
    along_y = [(labels[:, 0], spacing[0]), (labels[:, -1], spacing[0])]
    for side, size in along_x + along_y:
        walls = _long_runs(side == 0, max(1, round(_WALL_MM / size)))
        ends = [side[: walls[0]], side[walls[-1] :]] if walls.size else [side]
        for open_air in ends:
            outside[open_air] = True
    outside[0] = False
    return outside[labels]


def _long_runs(tissue: np.ndarray, length: int) -> np.ndarray:
    """Positions along a side (n,) that belong to runs of at least `length` voxels of tissue."""
    return np.flatnonzero(ndimage.binary_opening(tissue, np.ones(length, dtype=bool)))


def _parts(cells: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Connected parts that are body, after an opening by one cell, (z, y, x) bool.

    Args:
        cells: cells that may be body.
        dense: share of dense voxels of each cell, [0, 1].
    """
    cross = ndimage.generate_binary_structure(3, 1)
    # Beyond the border the body goes on: a scan ends in the middle of it.
    opened = ndimage.binary_erosion(cells, cross, border_value=1)
    opened = ndimage.binary_dilation(opened, cross) if opened.any() else cells
    labels, count = ndimage.label(opened)
    if not count:
        return np.zeros_like(cells)
    index = np.arange(1, count + 1)
    volume = ndimage.sum_labels(opened, labels, index)
    mass = ndimage.sum_labels(dense, labels, index)
    kept = (mass >= _SMALLEST_PART * mass.max()) & (mass >= _DENSE_SHARE * volume)
    kept[mass.argmax()] = True
    return np.concatenate([[False], kept])[labels]


def _near(parts: np.ndarray) -> np.ndarray:
    """Parts grown by two cells, which gives back the skin, ears and fingers the opening took."""
    return ndimage.binary_dilation(
        parts, ndimage.generate_binary_structure(3, 1), iterations=2, border_value=0
    )


def _reduce(function: np.ufunc, array: np.ndarray, block: list[int]) -> np.ndarray:
    """Reduces blocks of voxels; the last one of an axis may be smaller."""
    # Whole planes and rows go through the vector units; `reduceat`, which does not, comes last.
    for axis in range(array.ndim):
        edge = block[axis]
        starts = range(0, array.shape[axis], edge)
        if edge > 1 and axis < array.ndim - 1:
            parts = [array[(slice(None),) * axis + (slice(a, a + edge),)] for a in starts]
            array = np.stack([function.reduce(part, axis=axis) for part in parts], axis)
        elif edge > 1:
            array = function.reduceat(array, starts, axis=axis)
    return array


def _share(mask: np.ndarray, block: list[int]) -> np.ndarray:
    """Share of voxels of a mask in each block, [0, 1]."""
    sizes = [
        np.diff(np.append(np.arange(0, n, edge), n))
        for n, edge in zip(mask.shape, block, strict=True)
    ]
    z, y, x = np.ix_(*sizes)
    return _reduce(np.add, mask.astype(np.uint32), block) / (z * y * x)


def _extent(mask: np.ndarray) -> Slices:
    """Bounding box of a bool mask that is not empty."""
    return ndimage.find_objects(mask.view(np.uint8))[0]
