"""What becomes of the tissue inside a blob: foreign, shifted, constant or deformed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.blobs import Blob
from screener_nnu.synthetic.fields import FloatArray, Triple
from screener_nnu.synthetic.placement import BoolArray

HU_RANGE = (-1024, 3071)


@dataclass(frozen=True)
class Donor:
    """The scan that foreign tissue is taken from.

    Attributes:
        image_hu: HU, (Z, Y, X).
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
    """

    image_hu: NDArray[Any]
    body: BoolArray
    spacing: Triple


def shifted(before: FloatArray, blob: Blob, amount: float) -> FloatArray:
    """Tissue that became denser or less dense by `amount` HU, with its own texture."""
    return blended(before, before + np.float32(amount), blob)


def constant(before: FloatArray, blob: Blob, value: float) -> FloatArray:
    """One HU for the whole blob."""
    return blended(before, np.full_like(before, np.rint(value)), blob)


def blended(before: FloatArray, target: FloatArray, blob: Blob) -> FloatArray:
    """The target, as far as the weight of the blob goes; HU stay those that CT can hold."""
    return before + blob.weight * (np.clip(target, *HU_RANGE) - before)


def foreign(
    before: FloatArray, blob: Blob, spacing: Triple, donor: Donor, rng: np.random.Generator
) -> FloatArray:
    """Tissue of the donor around a random place of its body, same size in mm, possibly mirrored.

    Args:
        before: HU of the box, (z, y, x).
        blob: where.
        spacing: voxel size of the scan in mm (z, y, x).
        donor: the other scan.
        rng: draws the place and the mirroring.
    """
    inside = np.flatnonzero(donor.body)
    index = np.unravel_index(inside[rng.integers(len(inside))], donor.body.shape)
    grids = []
    for axis, part in enumerate(blob.box):
        step = spacing[axis]
        # Whole voxels from the centre: equal spacings need no interpolation, which would blur.
        offset = (np.arange(part.start, part.stop) - round(blob.centre[axis] / step)) * step
        mirrored = offset * rng.choice([-1.0, 1.0])
        grids.append(index[axis] + mirrored / donor.spacing[axis])
    places = np.stack(np.meshgrid(*grids, indexing="ij"))
    tissue = ndimage.map_coordinates(
        donor.image_hu, places, output=np.float32, order=1, mode="nearest"
    )
    known = ndimage.map_coordinates(
        donor.body.astype(np.uint8), places, output=np.float32, order=0, mode="constant"
    )
    # Air around the donor is no tissue: it takes the mean of what the blob holds of the donor.
    within = (known > 0.5) & (blob.weight > 0)
    fill = tissue[within].mean() if within.any() else np.float32(0)
    return blended(before, np.where(known > 0.5, tissue, fill), blob)
