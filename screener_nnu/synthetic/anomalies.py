"""Synthetic anomalies painted into a scan: foreign, shifted, constant or deformed tissue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.synthetic.anomaly_tissue import Donor, constant, foreign, shifted
from screener_nnu.synthetic.anomaly_warp import deformed, displacement
from screener_nnu.synthetic.blobs import Blob
from screener_nnu.synthetic.fields import FloatArray, Triple
from screener_nnu.synthetic.placement import (
    BlobSettings,
    BoolArray,
    Placement,
    blob_mask,
    place_blobs,
)

KINDS = ("pasted", "hypodense", "hyperdense", "constant", "deformation")
# A change that is smaller than this, averaged over a blob, would be lost in the noise.
_VISIBLE_HU = 60.0
_DRAWS = 20


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
    * `hypodense`, `hyperdense`: 40 to 120 HU are subtracted or added; texture stays.
    * `constant`: one HU from the body's own distribution.
    * `deformation`: tissue is moved by up to 4 to 12 mm, smoothly, and no HU is new.

    Args:
        image_hu: HU of the scan, (Z, Y, X).
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        donor_hu: HU of the donor, (Z', Y', X'); only `pasted` looks at it.
        donor_body: True inside the donor's body, (Z', Y', X').
        donor_spacing: voxel size of the donor in mm (z, y, x).
        kind: one of `KINDS`.
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
        changed[blob.box] = _painted(kind, changed[blob.box], blob, spacing, donor, sample, rng)
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


def _painted(
    kind: str,
    before: FloatArray,
    blob: Blob,
    spacing: Triple,
    donor: Donor,
    sample: NDArray[np.float64],
    rng: np.random.Generator,
) -> FloatArray:
    """HU of the blob's box with the anomaly."""
    if kind in ("hypodense", "hyperdense"):
        amount = float(rng.uniform(40, 120))
        return shifted(before, blob, amount if kind == "hyperdense" else -amount)
    if kind == "constant":
        return _visible(lambda: constant(before, blob, float(rng.choice(sample))), before, blob)
    if kind == "deformation":
        return _visible(lambda: _moved(before, blob, spacing, rng), before, blob)
    return _visible(lambda: foreign(before, blob, spacing, donor, rng), before, blob)


def _moved(before: FloatArray, blob: Blob, spacing: Triple, rng: np.random.Generator) -> FloatArray:
    """Tissue moved by a random field."""
    field = displacement(blob, spacing, float(rng.uniform(4, 12)), rng)
    return deformed(before, blob, spacing, field)


def _visible(draw: Callable[[], FloatArray], before: FloatArray, blob: Blob) -> FloatArray:
    """Draws until the change would be seen; fat pasted into fat is no anomaly."""
    inside = blob.weight > 0.5
    best, largest = before, -1.0
    for _ in range(_DRAWS):
        after = draw()
        change = float(np.abs(after[inside] - before[inside]).mean())
        if change > largest:
            best, largest = after, change
        if change >= _VISIBLE_HU:
            return after
    return best
