"""Connected components of a mask that fills a small part of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage


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
    box = ndimage.find_objects(mask.view(np.uint8))[0]
    inside = np.ascontiguousarray(mask[box]).view(np.uint8)
    labelled = sitk.ConnectedComponent(sitk.GetImageFromArray(inside), True)
    # Raster order is the same in the box as in the whole, so the labels meet their places.
    labels = sitk.GetArrayViewFromImage(labelled)[mask[box]].astype(np.int64)
    return Components(places, labels, int(labels.max()))
