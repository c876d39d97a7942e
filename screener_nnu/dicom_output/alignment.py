"""A map or a label image turned so that its planes are the slices of the source series."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from screener_nnu.dicom_output.source import SourceSeries
from screener_nnu.errors import ScreenerError

# How far a pixel may lie from where the series has it, in voxels of the image: within a slice only
# numbers are rounded, while the distances of slices may vary in a scan that is read as regular.
_IN_SLICE = 0.1
_ACROSS_SLICES = 0.5


def align_to_source(image: sitk.Image, source: SourceSeries) -> NDArray[Any]:
    """The voxels of an image plane by plane as the slices of the series lie.

    Axes are matched by where they point and slices by their positions, so an image that is flipped
    or permuted against the series comes out right. Nothing is interpolated.

    Returns:
        Array `(slices, rows, columns)`.

    Raises:
        ScreenerError: the voxels of the image are not those of the series.
    """
    corners = _to_index(image, source.corners())
    steps = np.stack(
        [
            corners[-1, 0] - corners[0, 0],  # from slice to slice
            corners[0, 2] - corners[0, 0],  # down the rows
            corners[0, 1] - corners[0, 0],  # across the columns
        ]
    )
    # Which axis (x, y, z) of the image goes with slices, rows and columns.
    axes = np.abs(steps).argmax(axis=1)
    size = tuple(image.GetSize()[axis] for axis in axes)
    if sorted(axes) != [0, 1, 2] or size != source.shape:
        raise ScreenerError(
            f"the image has {image.GetSize()} voxels (x, y, z), the DICOM series "
            f"{source.shape} (slices, rows, columns): give the series that the map was made of"
        )
    falls = steps[range(3), axes] < 0
    _check_places(corners, axes, falls, source.shape)
    # NumPy's axes (z, y, x) are SimpleITK's from behind.
    array = sitk.GetArrayViewFromImage(image).transpose([2 - axis for axis in axes])
    flipped = array[tuple(slice(None, None, -1 if fall else 1) for fall in falls)]
    return np.ascontiguousarray(flipped)


def _to_index(image: sitk.Image, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Continuous voxel indices (x, y, z) of points (mm), `(..., 3)`."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    moved = points - np.array(image.GetOrigin())
    return moved @ np.linalg.inv(direction).T / np.array(image.GetSpacing())


def _check_places(
    corners: NDArray[np.float64],
    axes: NDArray[np.intp],
    falls: NDArray[np.bool_],
    shape: tuple[int, int, int],
) -> None:
    """Compares corners `(slices, 3, 3)` in voxels of the image with where the planes are put."""
    slices, rows, columns = shape
    expected = np.zeros((slices, 3, 3))  # slice, row, column of each corner
    expected[..., 0] = np.arange(slices)[:, None]
    expected[:, 2, 1] = rows - 1
    expected[:, 1, 2] = columns - 1
    expected = np.where(falls, np.array(shape) - 1 - expected, expected)
    away = np.abs(corners[..., axes] - expected).max(axis=(0, 1))
    if (away > [_ACROSS_SLICES, _IN_SLICE, _IN_SLICE]).any():
        raise ScreenerError(
            "voxels of the image lie up to {:.2f} slices, {:.2f} rows and {:.2f} columns away from "
            "the pixels of the DICOM series: give the series that the map was made of (a series "
            "with a tilted gantry or missing slices has no DICOM output; use the NIfTI "
            "files)".format(*away)
        )
