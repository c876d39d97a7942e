"""Maps on the plan's grid, put back into the geometry of the input file.

They are written plane by plane into an array in the file's own axes, so that a scan of a whole body
needs no second copy of its map.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.plans import Shape
from screener_nnu.preprocessing.prepare import Frame
from screener_nnu.preprocessing.reading import CANONICAL, Geometry
from screener_nnu.preprocessing.resampling import nearest, resampled_slabs

if TYPE_CHECKING:
    import torch


def to_input_geometry(
    grid_map: np.ndarray,
    frame: Frame,
    fill: float,
    body: np.ndarray | None = None,
    device: torch.device | None = None,
) -> sitk.Image:
    """Puts a map on the plan's grid back into the input: voxels, axes, origin and direction.

    Args:
        grid_map: (z, y, x), `frame.grid_shape`.
        frame: how the grid lies in the input.
        fill: value outside the body box, and outside the body where one is given.
        body: mask on the storage or the plan's grid, see `mask_to_input_geometry`.
        device: that interpolates; the processor by default.

    Returns:
        A float32 image with exactly the geometry of the input, resampled trilinearly.
    """
    _check_shape(grid_map, frame.grid_shape)
    array, box = _blank(frame, fill, np.float32)
    inside = None if body is None else _MaskRows(body, frame)
    for first, rows in resampled_slabs(grid_map, frame.box_shape, device=device):
        if inside is not None:
            np.copyto(rows, fill, where=inside.rows(first, len(rows)) == 0)
        box[first : first + len(rows)] = rows
    return _image(array, frame.geometry)


def mask_to_input_geometry(grid_mask: np.ndarray, frame: Frame) -> sitk.Image:
    """Puts a mask on the plan's or the storage grid back into the input, 0 outside the box.

    Args:
        grid_mask: (z, y, x), bool or uint8, `frame.grid_shape` or `frame.storage_shape`.
        frame: how the grid lies in the input.

    Returns:
        A uint8 image with exactly the geometry of the input, resampled to the nearest voxel.
    """
    array, box = _blank(frame, 0, np.uint8)
    inside = _MaskRows(grid_mask, frame)
    for plane in range(len(box)):
        box[plane] = inside.rows(plane, 1)[0]
    return _image(array, frame.geometry)


class _MaskRows:
    """Planes of a mask at the size of the body box.

    Args:
        grid_mask: on the plan's or the storage grid.
        frame: how it lies in the input.
    """

    def __init__(self, grid_mask: np.ndarray, frame: Frame) -> None:
        if grid_mask.shape != frame.storage_shape:
            _check_shape(grid_mask, frame.grid_shape)
        index = zip(grid_mask.shape, frame.box_shape, strict=True)
        self._z, y, x = (nearest(size, target) for size, target in index)
        self._planes = grid_mask.astype(np.uint8, copy=False)[:, y][:, :, x]

    def rows(self, first: int, count: int) -> np.ndarray:
        """Planes (count, y, x) of the box, uint8."""
        return self._planes[self._z[first : first + count]]


def _check_shape(array: np.ndarray, shape: Shape) -> None:
    if array.shape != shape:
        raise ValueError(f"the map has shape {array.shape}, but its frame {shape}")


def _blank(frame: Frame, fill: float, kind: type) -> tuple[np.ndarray, np.ndarray]:
    """An array in the file's axes, and the body box in it as a view in canonical axes (z, y, x)."""
    geometry = frame.geometry
    array: np.ndarray = np.full(geometry.size[::-1], fill, dtype=kind)
    view = array.transpose([2 - _file_axis(geometry, letter)[0] for letter in CANONICAL[::-1]])
    turned = tuple(i for i in range(3) if _file_axis(geometry, CANONICAL[2 - i])[1])
    view = np.flip(view, turned)
    if view.shape != frame.raw_shape:
        raise ValueError(f"size {geometry.size} of the input is not that of {frame.raw_shape}")
    return array, view[frame.slices]


def _file_axis(geometry: Geometry, letter: str) -> tuple[int, bool]:
    """Axis of the file (x, y, z) that lies along a canonical one, and whether it points back."""
    opposite = dict(zip("LPSRAI", "RAILPS", strict=True))[letter]
    for axis, own in enumerate(geometry.orientation):
        if own in (letter, opposite):
            return axis, own == opposite
    raise ValueError(f"orientation {geometry.orientation} has no axis along {letter}")


def _image(array: np.ndarray, geometry: Geometry) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image
