"""Synthetic anomalies painted into a scan: foreign tissue, a shift of HU, a constant HU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.blobs import Blob
from screener_nnu.synthetic.fields import FloatArray, Triple
from screener_nnu.synthetic.placement import (
    BlobSettings,
    BoolArray,
    Placement,
    blob_mask,
    place_blobs,
)

KINDS = ("pasted", "shift", "constant")
_HU_RANGE = (-1024, 3071)
# A change that is smaller than this, averaged over a blob, would be lost in the noise.
_VISIBLE_HU = 60.0
_DRAWS = 20


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


def add_anomalies(
    image_hu: NDArray[Any],
    body: BoolArray,
    spacing: Triple,
    donor_hu: NDArray[Any],
    donor_body: BoolArray,
    donor_spacing: Triple,
    kind: str,
    rng: np.random.Generator,
    settings: BlobSettings | None = None,
    placement: Placement | None = None,
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Paints anomalies of one kind into a scan; nothing outside the body changes.

    * `pasted`: a region takes the HU of another place of the donor (Zimmerer et al., MOOD
      challenge: foreign tissue with a soft edge).
    * `shift`: 60 to 200 HU are added or subtracted.
    * `constant`: one HU, from the body's own distribution or from -100 to 200 HU.

    Args:
        image_hu: HU of the scan, (Z, Y, X).
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        donor_hu: HU of the donor, (Z', Y', X'); only `pasted` looks at it.
        donor_body: True inside the donor's body, (Z', Y', X').
        donor_spacing: voxel size of the donor in mm (z, y, x).
        kind: `pasted`, `shift` or `constant`.
        rng: source of randomness.
        settings: number, size and softness of the blobs.
        placement: places drawn before with `place_blobs`; None draws them here.

    Returns:
        Image of the same type and shape, and the mask, uint8 (Z, Y, X): one where the weight of a
        blob exceeds one half.

    Raises:
        ValueError: when the kind is unknown or a body mask is empty.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of anomaly {kind!r}; choose one of {', '.join(KINDS)}.")
    if not donor_body.any():
        raise ValueError("The donor's body mask is empty; check the HU of the scan.")
    placement = placement or place_blobs(body, spacing, rng, settings)
    donor = Donor(donor_hu, donor_body, donor_spacing)
    changed = image_hu.astype(np.float32)
    sample = _hu_sample(image_hu, body, rng)
    for blob in placement.blobs:
        before = changed[blob.box]
        target = _target(kind, before, blob, spacing, donor, sample, rng)
        before += blob.weight * (np.clip(target, *_HU_RANGE) - before)
    if np.issubdtype(image_hu.dtype, np.integer):
        changed = np.rint(changed)
    mask = blob_mask(image_hu.shape, placement.blobs).astype(np.uint8)
    # Only blobs are written back, so that rounding cannot touch a voxel outside them.
    result = image_hu.copy()
    for blob in placement.blobs:
        touched = blob.weight > 0
        result[blob.box][touched] = changed[blob.box][touched].astype(image_hu.dtype)
    return result, mask


def _hu_sample(
    image_hu: NDArray[Any], body: BoolArray, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A thousand HU values of the body."""
    inside = np.flatnonzero(body)
    chosen = inside[rng.integers(len(inside), size=1000)]
    return image_hu.reshape(-1)[chosen].astype(np.float64)


def _target(
    kind: str,
    before: FloatArray,
    blob: Blob,
    spacing: Triple,
    donor: Donor,
    sample: NDArray[np.float64],
    rng: np.random.Generator,
) -> FloatArray:
    """HU that the blob is to have, in its box."""
    if kind == "shift":
        return _shifted(before, blob, rng)
    if kind == "constant":
        return _visible(lambda: _constant(before, sample, rng), before, blob)
    return _visible(lambda: _foreign(blob, spacing, donor, rng), before, blob)


def _visible(draw: Callable[[], FloatArray], before: FloatArray, blob: Blob) -> FloatArray:
    """Draws until the change would be seen; fat pasted into fat is no anomaly."""
    inside = blob.weight > 0.5
    best, largest = before, -1.0
    for _ in range(_DRAWS):
        target = draw()
        change = float(np.abs(target[inside] - before[inside]).mean())
        if change > largest:
            best, largest = target, change
        if change >= _VISIBLE_HU:
            return target
    return best


def _shifted(before: FloatArray, blob: Blob, rng: np.random.Generator) -> FloatArray:
    """Denser or less dense by 60 to 200 HU; aerated tissue can only become denser."""
    amount = np.float32(rng.uniform(60, 200))
    aerated = float(np.median(before[blob.weight > 0.5])) < -700
    return before + (amount if aerated or rng.uniform() < 0.5 else -amount)


def _constant(
    before: FloatArray, sample: NDArray[np.float64], rng: np.random.Generator
) -> FloatArray:
    """One HU for the whole blob."""
    value = rng.choice(sample) if rng.uniform() < 0.5 else rng.uniform(-100, 200)
    return np.full_like(before, np.rint(value))


def _foreign(blob: Blob, spacing: Triple, donor: Donor, rng: np.random.Generator) -> FloatArray:
    """Tissue of the donor around a random place of its body, same size in mm, possibly mirrored."""
    inside = np.flatnonzero(donor.body)
    index = np.unravel_index(inside[rng.integers(len(inside))], donor.body.shape)
    grids = []
    for axis, part in enumerate(blob.box):
        offset = np.arange(part.start, part.stop) * spacing[axis] - blob.centre[axis]
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
    return np.where(known > 0.5, tissue, fill)
