"""Anomalies of a second family: regions of a scan that are altered in themselves.

No detector that learns from synthetic anomalies is trained on them: nothing is pasted and nothing
takes a constant value, as in the anomalies of the family `painted`; a star keeps the texture that
was there. `roughened` lies near the noise that `denoising` learns to take away. The two families
share where anomalies may lie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.altered_tissue import ALTERATIONS, Surroundings
from screener_nnu.synthetic.anomaly_positions import BoolArray
from screener_nnu.synthetic.anomaly_settings import BlobSettings, Range
from screener_nnu.synthetic.anomaly_tissue import blended
from screener_nnu.synthetic.blobs import Blob, box_around
from screener_nnu.synthetic.fields import FloatArray, Triple, ellipsoid, occupancy
from screener_nnu.synthetic.placement import BodyPlaces

ALTERED_KINDS = tuple(ALTERATIONS)
#: Of how scans are altered; raised with every change, so that stored ones are made anew.
ALTERING_VERSION = 3
#: Regions of 10 to 40 mm.
REGIONS = BlobSettings(radius=(5.0, 20.0))
#: Change, in parts of the window, above which a voxel counts as anomalous.
LEAST_CHANGE = 0.02
# A region in whose inner half fewer voxels change so much shows nothing.
_LEAST_SHARE = 0.25
# Neighbours that share a face, and those that share a side in the plane of a single slice, where
# nothing would be closed by the others: the slices beside it are empty.
_FACES = ndimage.generate_binary_structure(3, 1)
_SIDES = ndimage.generate_binary_structure(2, 1)[None]


def add_alterations(
    image: NDArray[Any],
    body: BoolArray,
    spacing: Triple,
    window: Range,
    kind: str,
    rng: np.random.Generator,
) -> tuple[NDArray[Any], BoolArray]:
    """Alters soft-edged ellipsoids of a scan; nothing outside the body changes.

    * `blurred`: fine structure is lost.
    * `roughened`: noise of about a voxel is added.
    * `mirrored`: the content is mirrored about the centre.
    * `inverted`: contrast is inverted about the local mean.
    * `spiculated`: a star with rays as bright as soft tissue, or in soft tissue of another density,
      with the texture that was there.

    Args:
        image: HU, or what stands for them, (Z, Y, X).
        body: True inside the body, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        window: lowest and highest value that is looked at.
        kind: one of `ALTERED_KINDS`.
        rng: source of randomness.

    Returns:
        The image, of the same type, and a mask, bool (Z, Y, X): voxels whose value within the
        window has changed by more than 2 % of it, and gaps of a voxel between them.

    Raises:
        ValueError: an unknown kind, an empty body or no place where the change is seen.
    """
    if kind not in ALTERATIONS:
        known = ", ".join(ALTERED_KINDS)
        raise ValueError(f"Unknown kind of anomaly {kind!r}; choose one of {known}.")
    places = BodyPlaces(body, spacing, draw_ellipsoid)
    altering = _Altering(image, body, spacing, window, kind, int(rng.integers(2**32)))
    placement = places.place(rng, REGIONS, altering.shows)
    result, mask = image.copy(), np.zeros(image.shape, bool)
    for blob in placement.blobs:
        touched = blob.weight > 0
        after = altering.after(blob)
        if np.issubdtype(image.dtype, np.integer):
            after = np.rint(after)
        result[blob.box][touched] = after[touched].astype(image.dtype)
        mask[blob.box] |= altering.changed(blob, result[blob.box])
    return result, mask


def draw_ellipsoid(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    spacing: Triple,
    centre: Triple,
    radius: float,
    edge_mm: float,
) -> Blob:
    """Draws an ellipsoid turned at random, cut at the border of the volume.

    Its half axes are 0.75 to 1 radius, so that it is nowhere longer than two radii.

    Args:
        rng: source of randomness.
        shape: (Z, Y, X) of the volume.
        spacing: voxel size in mm (z, y, x).
        centre: centre in mm (z, y, x), voxel 0 at 0 mm.
        radius: largest half axis in mm.
        edge_mm: width of the soft edge in mm.
    """
    box, axes = box_around(shape, spacing, centre, radius + edge_mm / 2)
    half_axes = (radius * rng.uniform(0.75, 1.0, 3)).tolist()
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0].astype(np.float32)
    points = np.tensordot(turn, np.stack(np.meshgrid(*axes, indexing="ij")), axes=1)
    distance = ellipsoid(list(points), (0.0, 0.0, 0.0), half_axes)
    return Blob(box, occupancy(distance, edge_mm), centre, radius)


class _Altering:
    """Alters one region at a time; what it draws depends on where the region begins alone."""

    def __init__(
        self,
        image: NDArray[Any],
        body: BoolArray,
        spacing: Triple,
        window: Range,
        kind: str,
        seed: int,
    ) -> None:
        """Measures the body."""
        self.image, self.window, self.kind, self.seed = image, window, kind, seed
        self.width = float(window[1] - window[0])
        tissue = float(np.median(image[body])) if body.any() else 0.0
        self.scan = Surroundings(spacing, self.width, tissue)

    def after(self, blob: Blob) -> FloatArray:
        """Values of the region's box, altered."""
        before = self.image[blob.box].astype(np.float32)
        rng = np.random.default_rng([self.seed, *(part.start for part in blob.box)])
        return blended(before, ALTERATIONS[self.kind](before, blob, self.scan, rng), blob)

    def changed(self, blob: Blob, after: NDArray[Any]) -> BoolArray:
        """Voxels of the box that count as anomalous."""
        seen = self._differs(blob, after)
        # Texture that stays by chance in the midst of what changes is a part of the anomaly.
        near = _SIDES if seen.shape[0] == 1 else _FACES
        closed = ndimage.binary_closing(np.pad(seen, 1), near)[1:-1, 1:-1, 1:-1]
        return np.asarray(seen | (closed & (blob.weight > 0)))

    def shows(self, blob: Blob) -> bool:
        """Whether enough of a region changes."""
        inside = blob.weight > 0.5
        share = self._differs(blob, self.after(blob))[inside].mean()
        return bool(share >= (_LEAST_SHARE / 2 if self.kind == "spiculated" else _LEAST_SHARE))

    def _differs(self, blob: Blob, after: NDArray[Any]) -> BoolArray:
        before = np.clip(self.image[blob.box].astype(np.float32), *self.window)
        seen = np.clip(after.astype(np.float32), *self.window)
        return np.asarray(np.abs(seen - before) > LEAST_CHANGE * self.width)
