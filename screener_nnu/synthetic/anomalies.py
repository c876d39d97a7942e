"""Synthetic anomalies painted into a scan: foreign, shifted, constant or deformed tissue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.synthetic.anomaly_positions import BoolArray
from screener_nnu.synthetic.anomaly_settings import BlobSettings
from screener_nnu.synthetic.anomaly_tissue import Scan, constant, foreign, shifted
from screener_nnu.synthetic.anomaly_warp import deformed, displacement, variation
from screener_nnu.synthetic.blobs import Blob
from screener_nnu.synthetic.fields import FloatArray, Triple
from screener_nnu.synthetic.placement import BodyPlaces, Placement, blob_mask

KINDS = ("pasted", "hypodense", "hyperdense", "constant", "deformation")
_DRAWS = 20
# Lung and air cannot become much less dense (HU).
_AERATED_HU = -500.0
# Where there is air alone, no tissue becomes denser (HU).
_AIR_HU = -950.0
# Where HU vary by so many times the visible change, nearly every movement (97 % of the places on
# chest and neck CT) can be made to show.
_VARIATION = 1.6


@dataclass(frozen=True)
class Painted:
    """A scan with anomalies.

    Attributes:
        image_hu: HU, of the type and shape of the scan.
        mask: uint8 (Z, Y, X), one where the weight of a blob exceeds one half.
        contrasts: mean change in HU of each blob's voxels, with its sign.
        changes: mean absolute change in HU of each blob's voxels.
    """

    image_hu: NDArray[Any]
    mask: NDArray[np.uint8]
    contrasts: list[float]
    changes: list[float]


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
    * `hypodense`, `hyperdense`: HU are subtracted or added; texture stays, and air stays air.
    * `constant`: one HU from the body's own distribution.
    * `deformation`: tissue bulges, shrinks, twists or is pushed aside, smoothly, up to the edge of
      the blob, where it rests.

    Args:
        image_hu: HU of the scan, (Z, Y, X).
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        donor_hu: HU of the donor, (Z', Y', X'); only `pasted` looks at it.
        donor_body: True inside the donor's body, (Z', Y', X').
        donor_spacing: voxel size of the donor in mm (z, y, x).
        kind: one of `KINDS`.
        rng: source of randomness.
        settings: number, size and contrast of the blobs.
        placement: places drawn before with `place_anomalies`; None draws them here.

    Returns:
        Image of the same type and shape, and the mask, uint8 (Z, Y, X): one where the weight of a
        blob exceeds one half.

    Raises:
        ValueError: when the kind is unknown, a body mask is empty or no place is suitable.
    """
    check_kind(kind)
    if not donor_body.any():
        raise ValueError("The donor's body mask is empty; check the HU of the scan.")
    scan = Scan(image_hu, body, spacing)
    if placement is None:
        placement = place_anomalies(scan, BodyPlaces(body, spacing), kind, rng, settings)
    donor = Scan(donor_hu, donor_body, donor_spacing)
    painted = paint_anomalies(scan, donor, kind, rng, settings, placement)
    return painted.image_hu, painted.mask


def check_kind(kind: str) -> None:
    """Raises a ValueError when there is no such kind."""
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of anomaly {kind!r}; choose one of {', '.join(KINDS)}.")


def place_anomalies(
    scan: Scan,
    places: BodyPlaces,
    kind: str,
    rng: np.random.Generator,
    settings: BlobSettings | None = None,
) -> Placement:
    """Draws places where an anomaly of this kind can be.

    Raises:
        ValueError: when there is none.
    """
    settings = settings or BlobSettings()

    def suits(blob: Blob) -> bool:
        before = scan.image_hu[blob.box].astype(np.float32)
        middle = float(np.median(before[blob.weight > 0.5]))
        if kind == "deformation":
            moved = variation(before, blob, scan.spacing, settings.displacement)
            return moved >= _VARIATION * settings.visible
        return middle > {"hypodense": _AERATED_HU, "hyperdense": _AIR_HU}.get(kind, -np.inf)

    return places.place(rng, settings, suits)


def paint_anomalies(
    scan: Scan,
    donor: Scan,
    kind: str,
    rng: np.random.Generator,
    settings: BlobSettings | None,
    placement: Placement,
) -> Painted:
    """Paints anomalies of one kind at given places; see `add_anomalies`."""
    painter = _Painter(scan, donor, kind, rng, settings or BlobSettings())
    result = scan.image_hu.copy()
    whole = np.issubdtype(result.dtype, np.integer)
    contrasts, changes = [], []
    for blob in placement.blobs:
        before = scan.image_hu[blob.box].astype(np.float32)
        after = painter.paint(before, blob)
        # Only the blob is written back, so that rounding cannot touch a voxel outside it.
        touched = blob.weight > 0
        written = np.rint(after) if whole else after
        result[blob.box][touched] = written[touched].astype(result.dtype)
        difference = (result[blob.box] - before)[blob.weight > 0.5]
        contrasts.append(float(difference.mean()))
        changes.append(float(np.abs(difference).mean()))
    mask = blob_mask(result.shape, placement.blobs).astype(np.uint8)
    return Painted(result, mask, contrasts, changes)


class _Painter:
    """Paints one blob after another.

    Args:
        scan: the scan.
        donor: where foreign tissue comes from.
        kind: one of `KINDS`.
        rng: source of randomness.
        settings: contrast of the blobs.
    """

    def __init__(
        self, scan: Scan, donor: Scan, kind: str, rng: np.random.Generator, settings: BlobSettings
    ) -> None:
        """Draws the HU that constant blobs choose from."""
        self.spacing, self.donor, self.kind = scan.spacing, donor, kind
        self.rng, self.settings = rng, settings
        inside = np.flatnonzero(scan.body)
        chosen = inside[rng.integers(len(inside), size=1000)]
        self.sample = scan.image_hu.reshape(-1)[chosen].astype(np.float64)

    def paint(self, before: FloatArray, blob: Blob) -> FloatArray:
        """HU of the blob's box with the anomaly."""
        if self.kind in ("hypodense", "hyperdense"):
            amount = float(self.rng.uniform(*self.settings.contrast))
            return shifted(before, blob, amount if self.kind == "hyperdense" else -amount)
        draw = {"pasted": self._foreign, "constant": self._constant, "deformation": self._moved}
        return self._visible(draw[self.kind], before, blob)

    def _foreign(self, before: FloatArray, blob: Blob) -> FloatArray:
        return foreign(before, blob, self.spacing, self.donor, self.rng)

    def _constant(self, before: FloatArray, blob: Blob) -> FloatArray:
        return constant(before, blob, float(self.rng.choice(self.sample)))

    def _moved(self, before: FloatArray, blob: Blob) -> FloatArray:
        amplitude = float(self.rng.uniform(*self.settings.displacement))
        field = displacement(blob, self.spacing, amplitude, self.rng)
        return deformed(before, blob, self.spacing, field)

    def _visible(
        self, draw: Callable[[FloatArray, Blob], FloatArray], before: FloatArray, blob: Blob
    ) -> FloatArray:
        """Draws until the change would be seen; fat pasted into fat is no anomaly."""
        inside = blob.weight > 0.5
        best, largest = before, -1.0
        for _ in range(_DRAWS):
            after = draw(before, blob)
            change = float(np.abs(after[inside] - before[inside]).mean())
            if change > largest:
                best, largest = after, change
            if change >= self.settings.visible:
                break
        return best
