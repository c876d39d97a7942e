"""A CT of a trunk that nobody had to lie down for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.synthetic.anatomy import draw_anatomy
from screener_nnu.synthetic.canvas import Canvas
from screener_nnu.synthetic.fields import Triple
from screener_nnu.synthetic.lesions import Lesion, paint_lesions
from screener_nnu.synthetic.organs import OrganPainter
from screener_nnu.synthetic.skeleton import paint_skeleton
from screener_nnu.synthetic.texture import draw_scanner, scan
from screener_nnu.synthetic.trunk import paint_trunk
from screener_nnu.synthetic.vessels import paint_lung_vessels

_MARGIN_MM = 14.0
_TABLE_MM = 34.0


@dataclass(frozen=True)
class Phantom:
    """One synthetic scan; x grows to the patient's left, y to the back, z to the head (LPS).

    Attributes:
        image_hu: HU, int16 (Z, Y, X).
        lesion_mask: one inside lesions, uint8 (Z, Y, X).
        labels: `screener_nnu.synthetic.canvas.Tissue` values, uint8 (Z, Y, X); zero outside the
            body (the table included). Lesions keep the label of the tissue that they replace.
        spacing: voxel size in mm (z, y, x).
        lesions: what was drawn into the mask.
    """

    image_hu: NDArray[np.int16]
    lesion_mask: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    spacing: Triple
    lesions: list[Lesion] = field(default_factory=list)

    @property
    def body(self) -> NDArray[np.bool_]:
        """True inside the body, lungs and gas included, (Z, Y, X)."""
        return self.labels > 0


def generate_phantom(seed: int, spacing: Triple = (4.0, 3.0, 3.0), lesions: int = 0) -> Phantom:
    """Draws a patient and scans it.

    Anatomy, scanner, noise and lesions have random streams of their own: the same seed with and
    without lesions gives the same patient and the same noise.

    Args:
        seed: names the patient, a non-negative integer.
        spacing: voxel size in mm (z, y, x).
        lesions: number of lesions; fewer only when the anatomy has no room for them.

    Returns:
        The phantom, about 24 to 32 cm long, 29 to 35 cm wide and 24 to 29 cm deep.

    Example:
        >>> phantom = generate_phantom(seed=1, spacing=(8.0, 6.0, 6.0))
        >>> phantom.image_hu.dtype, phantom.image_hu.shape == phantom.labels.shape
        (dtype('int16'), True)
    """
    streams = np.random.SeedSequence(seed).spawn(4)
    anatomy_rng, scanner_rng, noise_rng, lesion_rng = map(np.random.default_rng, streams)
    anatomy = draw_anatomy(anatomy_rng)
    half_y, half_x = anatomy.body
    start = (0.0, -half_y - _MARGIN_MM, -half_x - _MARGIN_MM)
    extent = (anatomy.length, 2 * half_y + _MARGIN_MM + _TABLE_MM, 2 * (half_x + _MARGIN_MM))
    canvas = Canvas(start, extent, spacing)
    canvas.bend(anatomy_rng, 3.5, 60.0)
    trunk = paint_trunk(canvas, anatomy, anatomy_rng)
    OrganPainter(canvas, anatomy, trunk, anatomy_rng).paint()
    paint_skeleton(canvas, anatomy, trunk, anatomy_rng)
    paint_lung_vessels(canvas, anatomy, trunk.lung, anatomy_rng)
    mask, drawn = paint_lesions(canvas, lesions, lesion_rng)
    depth = ndimage.distance_transform_edt(canvas.labels > 0, sampling=spacing)
    scanner = draw_scanner(scanner_rng)
    image = scan(canvas.image, np.asarray(depth, np.float32), spacing, scanner, noise_rng)
    return Phantom(np.rint(image).astype(np.int16), mask, canvas.labels, spacing, drawn)
