"""Connected components of a mask that fills a small part of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray


@dataclass(frozen=True)
class Components:
    """Components of a mask in the 26-neighbourhood.

    Attributes:
        places: flat index of each voxel of the mask, rising `(n,)`.
        labels: component of each of them, from 1 `(n,)`.
        number: components.
    """

    places: NDArray[np.intp]
    labels: NDArray[np.int64]
    number: int


def label_components(mask: NDArray[np.bool_]) -> Components:
    """Labels a mask `(z, y, x)`.

    ITK's filter works on runs of voxels; on a whole CT it is some eight times as fast as
    `scipy.ndimage.label`.
    """
    places = np.flatnonzero(mask)
    if places.size == 0:
        return Components(places, np.zeros(0, np.int64), 0)
    box = _bounding_box(mask)
    inside = np.ascontiguousarray(mask[box]).view(np.uint8)
    labelled = sitk.ConnectedComponent(sitk.GetImageFromArray(inside), True)
    # Raster order is the same in the box as in the whole, so the labels meet their places.
    labels = sitk.GetArrayViewFromImage(labelled)[mask[box]].astype(np.int64)
    return Components(places, labels, int(labels.max()))


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        used = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)
