"""What becomes of the tissue inside a blob: foreign, shifted, constant or deformed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.anomaly_positions import BoolArray
from screener_nnu.synthetic.blobs import Blob
from screener_nnu.synthetic.fields import FloatArray, Triple

HU_RANGE = (-1024, 3071)
# Foreign tissue comes from a place where this share of the blob lies inside the donor's body, if
# one is found in so many draws.
_TISSUE_SHARE = 0.9
_PLACES = 20


@dataclass(frozen=True)
class Scan:
    """A scan that gets anomalies, or that foreign tissue is taken from.

    Attributes:
        image_hu: HU, (Z, Y, X).
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
    """

    image_hu: NDArray[Any]
    body: BoolArray
    spacing: Triple


def shifted(before: FloatArray, blob: Blob, amount: float) -> FloatArray:
    """Tissue that became denser or less dense by `amount` HU, with its own texture.

    Air has no density to lose or gain: below -900 HU the change falls off, to nothing at -1000.
    """
    tissue = np.clip((before + np.float32(1000)) / np.float32(100), 0, 1)
    target: FloatArray = before + np.float32(amount) * tissue
    return blended(before, target, blob)


def constant(before: FloatArray, blob: Blob, value: float) -> FloatArray:
    """One HU for the whole blob."""
    return blended(before, np.full_like(before, np.rint(value)), blob)


def blended(before: FloatArray, target: FloatArray, blob: Blob) -> FloatArray:
    """The target, as far as the weight of the blob goes; HU stay those that CT can hold."""
    return before + blob.weight * (np.clip(target, *HU_RANGE) - before)


def foreign(
    before: FloatArray, blob: Blob, spacing: Triple, donor: Scan, rng: np.random.Generator
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
    wanted = blob.weight > 0
    for _ in range(_PLACES):
        index = np.unravel_index(inside[rng.integers(len(inside))], donor.body.shape)
        places = _places(blob, spacing, donor, [int(i) for i in index], rng)
        known = ndimage.map_coordinates(
            donor.body.astype(np.uint8), places, output=np.uint8, order=0, mode="constant"
        )
        if known[wanted].mean() >= _TISSUE_SHARE:
            break
    tissue = ndimage.map_coordinates(
        donor.image_hu, places, output=np.float32, order=1, mode="nearest"
    )
    # Air around the donor is no tissue: it takes the mean of what the blob holds of the donor.
    within = (known > 0) & wanted
    fill = tissue[within].mean() if within.any() else np.float32(0)
    return blended(before, np.where(known > 0, tissue, fill), blob)


def _places(
    blob: Blob, spacing: Triple, donor: Scan, index: list[int], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Voxel coordinates in the donor for the blob's box, around a voxel, (3, z, y, x)."""
    grids = []
    for axis, part in enumerate(blob.box):
        step = spacing[axis]
        # Whole voxels from the centre: equal spacings need no interpolation, which would blur.
        offset = (np.arange(part.start, part.stop) - round(blob.centre[axis] / step)) * step
        mirrored = offset * rng.choice([-1.0, 1.0])
        grids.append(index[axis] + mirrored / donor.spacing[axis])
    return np.stack(np.meshgrid(*grids, indexing="ij"))
