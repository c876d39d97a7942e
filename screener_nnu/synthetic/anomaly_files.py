"""Scans and anomalies on disk: axes turned to LPS in memory, the geometry of the input in files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from screener_nnu.errors import CaseError
from screener_nnu.preprocessing.body import body_mask
from screener_nnu.preprocessing.reading import CANONICAL, Geometry, Source, read_image
from screener_nnu.synthetic.anomaly_tissue import Scan
from screener_nnu.synthetic.fields import Triple


@dataclass(frozen=True)
class InputFrame:
    """How the array of a scan, its axes turned to LPS, lies in the input.

    Attributes:
        geometry: of the input.
        origin: centre of the array's first voxel (mm; x, y, z in LPS).
        direction: 3 x 3 direction cosines of the array's axes (x, y, z), row by row.
        spacing: voxel size of the array in mm (z, y, x).
        whole: whether the input holds whole numbers that fit into 16 bits.
    """

    geometry: Geometry
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    spacing: Triple
    whole: bool

    def world(self, place: Triple) -> list[float]:
        """Place in mm (z, y, x) from the first voxel, as x, y, z in mm (LPS)."""
        turned = np.reshape(self.direction, (3, 3)) @ np.array(place[::-1])
        return [round(float(value), 2) for value in np.array(self.origin) + turned]

    def image(self, array: NDArray[np.float32] | NDArray[np.uint8]) -> sitk.Image:
        """An array (z, y, x) with exactly the axes and the geometry of the input.

        HU become 16-bit whole numbers when those of the input are whole.
        """
        whole = self.whole and array.dtype != np.uint8
        image = sitk.GetImageFromArray(np.rint(array).astype(np.int16) if whole else array)
        image.SetDirection(self.direction)
        image = sitk.DICOMOrient(image, self.geometry.orientation)
        image.SetSpacing(self.geometry.spacing)
        image.SetOrigin(self.geometry.origin)
        image.SetDirection(self.geometry.direction)
        return image


def read_scan(path: Source, case: str) -> tuple[Scan, InputFrame]:
    """Reads a scan in HU, turns its axes to LPS and finds its body.

    Raises:
        CaseError: the file is unreadable, no CT of a person, or holds no body.
    """
    raw = read_image(path, case)
    body = body_mask(raw.array, raw.spacing)
    if not body.any():
        raise CaseError(case, "no body was found: check that its intensities are HU (air -1000)")
    probe = sitk.Image(list(raw.geometry.size), sitk.sitkUInt8)
    probe.SetSpacing(raw.geometry.spacing)
    probe.SetOrigin(raw.geometry.origin)
    probe.SetDirection(raw.geometry.direction)
    probe = sitk.DICOMOrient(probe, CANONICAL)
    limits = np.iinfo(np.int16)
    fits = limits.min <= raw.array.min() and raw.array.max() <= limits.max
    whole = bool(fits and (raw.array == np.rint(raw.array)).all())
    frame = InputFrame(raw.geometry, probe.GetOrigin(), probe.GetDirection(), raw.spacing, whole)
    return Scan(raw.array, body, raw.spacing), frame
