"""Maps on the plan's grid, put back into the geometry of the input file."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.plans import Shape
from screener_nnu.preprocessing.prepare import Frame
from screener_nnu.preprocessing.reading import CANONICAL, Geometry
from screener_nnu.preprocessing.resampling import resample_mask_to_shape, resample_to_shape


def to_input_geometry(grid_map: np.ndarray, frame: Frame, fill: float) -> sitk.Image:
    """Puts a map on the plan's grid back into the input: voxels, axes, origin and direction.

    Args:
        grid_map: (z, y, x), `frame.grid_shape`.
        frame: how the grid lies in the input.
        fill: value outside the body box.

    Returns:
        A float32 image with exactly the geometry of the input, resampled trilinearly.
    """
    _check_shape(grid_map, frame.grid_shape)
    inner = resample_to_shape(grid_map.astype(np.float32, copy=False), frame.box_shape)
    return _restore(_paste(inner, frame, fill), frame.geometry)


def mask_to_input_geometry(grid_mask: np.ndarray, frame: Frame) -> sitk.Image:
    """Puts a mask on the plan's or the storage grid back into the input, 0 outside the box.

    Args:
        grid_mask: (z, y, x), bool or uint8, `frame.grid_shape` or `frame.storage_shape`.
        frame: how the grid lies in the input.

    Returns:
        A uint8 image with exactly the geometry of the input, resampled to the nearest voxel.
    """
    if grid_mask.shape != frame.storage_shape:
        _check_shape(grid_mask, frame.grid_shape)
    inner = resample_mask_to_shape(grid_mask, frame.box_shape)
    return _restore(_paste(inner, frame, 0), frame.geometry)


def _check_shape(array: np.ndarray, shape: Shape) -> None:
    if array.shape != shape:
        raise ValueError(f"the map has shape {array.shape}, but its frame {shape}")


def _paste(inner: np.ndarray, frame: Frame, fill: float) -> np.ndarray:
    if inner.shape == frame.raw_shape:
        return inner
    whole = np.full(frame.raw_shape, fill, dtype=inner.dtype)
    whole[frame.slices] = inner
    return whole


def _restore(canonical: np.ndarray, geometry: Geometry) -> sitk.Image:
    """Turns a canonical array (z, y, x) back to the axes of the input."""
    image = sitk.GetImageFromArray(canonical)
    image.SetDirection(_canonical_direction(geometry))
    image = sitk.DICOMOrient(image, geometry.orientation)
    if tuple(image.GetSize()) != geometry.size:
        raise ValueError(f"size {image.GetSize()} differs from the input's {geometry.size}")
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def _canonical_direction(geometry: Geometry) -> tuple[float, ...]:
    """Direction cosines after turning to LPS; they depend on those of the input alone."""
    probe = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    probe.SetDirection(geometry.direction)
    return sitk.DICOMOrient(probe, CANONICAL).GetDirection()
