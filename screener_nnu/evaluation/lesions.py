"""Lesions of an annotation, and where their voxels lie among the bins.

A lesion is a connected component of the annotation in the 26-neighbourhood. The mean overlap of
lesions above a threshold is then the mean of their own true positive rates, so the per-region
overlap curve (AUPRO; Bergmann et al., CVPR 2019) comes from histograms as the ROC curve does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CONNECTIVITY = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Lesions:
    """Lesions of one case.

    Attributes:
        of_voxel: lesion, from 0, of each annotated voxel in the order of the array
            `(annotated voxels,)`.
        sizes: voxels of each lesion `(L,)`.
    """

    of_voxel: NDArray[np.int32]
    sizes: NDArray[np.int64]


def find_lesions(annotation: NDArray[np.bool_]) -> Lesions:
    """Labels the connected components of an annotation `(z, y, x)` in the 26-neighbourhood."""
    boxes = ndimage.find_objects(annotation.astype(np.uint8))
    if not boxes:
        return Lesions(np.zeros(0, np.int32), np.zeros(0, np.int64))
    inside = annotation[boxes[0]]
    labelled, _ = ndimage.label(inside, CONNECTIVITY)
    of_voxel = labelled[inside].astype(np.int32) - 1
    return Lesions(of_voxel, np.bincount(of_voxel).astype(np.int64))


@dataclass(frozen=True)
class LesionHistograms:
    """Histogram of each lesion of a case, sparse since lesions hold few voxels.

    Attributes:
        sizes: voxels of each lesion `(L,)`.
        lesions: lesion of each entry `(E,)`.
        bins: bin of each entry `(E,)`.
        counts: voxels of that lesion in that bin `(E,)`.
    """

    sizes: NDArray[np.int64]
    lesions: NDArray[np.int32]
    bins: NDArray[np.int32]
    counts: NDArray[np.int32]

    @classmethod
    def count(cls, lesions: Lesions, bins: NDArray[np.int32]) -> LesionHistograms:
        """Counts the annotated voxels of a case by lesion and bin.

        Args:
            lesions: lesions of the case.
            bins: bin of each annotated voxel, in the order of the array `(annotated voxels,)`.
        """
        joint = lesions.of_voxel.astype(np.int64) << 32 | bins.astype(np.int64)
        entries, counts = np.unique(joint, return_counts=True)
        return cls(
            lesions.sizes,
            (entries >> 32).astype(np.int32),
            (entries & 0xFFFFFFFF).astype(np.int32),
            counts.astype(np.int32),
        )

    def overlap(self, bins: int) -> NDArray[np.float64]:
        """Shares of the lesions' voxels by bin, summed over lesions `(bins,)`.

        Each lesion adds one in all. In the place of annotated voxels in `area_under_roc` this
        gives AUPRO.
        """
        shares = self.counts / self.sizes[self.lesions]
        return np.bincount(self.bins, weights=shares, minlength=bins).astype(np.float64)
