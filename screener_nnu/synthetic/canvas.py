"""The volume that a phantom is painted on, and the tissues that it can show."""

from __future__ import annotations

from bisect import bisect_left
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from screener_nnu.synthetic.fields import (
    FloatArray,
    Place,
    Triple,
    capsule,
    occupancy,
    smooth_noise,
)


class Tissue(IntEnum):
    """Values of the organ label map; everything above `AIR` is inside the body."""

    AIR = 0
    SKIN = 1
    FAT = 2
    MUSCLE = 3
    LUNG = 4
    LUNG_VESSEL = 5
    AIRWAY = 6
    HEART = 7
    BLOOD_VESSEL = 8
    LIVER = 9
    SPLEEN = 10
    KIDNEY = 11
    STOMACH = 12
    BOWEL = 13
    BONE = 14
    DISC = 15
    CARTILAGE = 16
    SPINAL_CORD = 17


class Canvas:
    """A CT volume in the making: HU and labels, painted shape by shape with soft edges.

    Args:
        start: place of the first voxel in mm (z, y, x).
        extent: size of the volume in mm (z, y, x).
        spacing: voxel size in mm (z, y, x).

    Attributes:
        axes: voxel coordinates in mm along each axis, 1D.
        points: the same as fields (Z, Y, X), bent by a random deformation once `bend` was called.
        image: HU, float32 (Z, Y, X), starts as air.
        labels: `Tissue` values, uint8 (Z, Y, X).
    """

    def __init__(self, start: Triple, extent: Triple, spacing: Triple) -> None:
        """Starts with a volume of air."""
        counts = [max(8, round(e / s)) for e, s in zip(extent, spacing, strict=True)]
        self.spacing = spacing
        self.softness = float(np.mean(spacing))
        self.axes = [
            (origin + step * (np.arange(count) + 0.5)).astype(np.float32)
            for origin, step, count in zip(start, spacing, counts, strict=True)
        ]
        self.points: list[FloatArray] = list(np.meshgrid(*self.axes, indexing="ij", sparse=True))
        # Thousands of tubes are painted: their boxes are found among plain numbers.
        self._unbent = tuple(self.points)
        self._places: list[list[float]] = [axis.tolist() for axis in self.axes]
        self.image: FloatArray = np.full(counts, -1000, np.float32)
        self.labels: NDArray[np.uint8] = np.zeros(counts, np.uint8)

    def bend(self, rng: np.random.Generator, amplitude_mm: float, correlation_mm: float) -> None:
        """Deforms the coordinates that shapes are drawn in, so that no organ is an ellipsoid."""
        self.points = [
            point + np.float32(amplitude_mm) * smooth_noise(rng, self.axes, correlation_mm)
            for point in self.points
        ]

    def paint(
        self, distance: FloatArray, hu: float | NDArray[np.floating], tissue: Tissue | None = None
    ) -> None:
        """Fills a shape; its edge mixes with what lies beneath (partial volume).

        Args:
            distance: signed distance in mm, broadcastable to (Z, Y, X), negative inside.
            hu: intensity in HU, a number or a field.
            tissue: label of the voxels inside; None leaves the labels alone.
        """
        weight = occupancy(distance, self.softness)
        self.image += weight * (np.asarray(hu, np.float32) - self.image)
        if tissue is not None:
            self.labels[np.broadcast_to(distance < 0, self.labels.shape)] = tissue

    def paint_tube(
        self, start: Place, end: Place, radius: float, hu: float, tissue: Tissue
    ) -> None:
        """Fills a straight tube with round ends, in unbent coordinates, touching only its box."""
        margin = radius + self.softness
        box = []
        for places, a, b in zip(self._places, start, end, strict=True):
            first = bisect_left(places, min(a, b) - margin)
            last = bisect_left(places, max(a, b) + margin)
            if first >= last:
                return
            box.append(slice(first, last))
        where = z, y, x = box[0], box[1], box[2]
        local = self._unbent[0][z], self._unbent[1][:, y], self._unbent[2][:, :, x]
        distance = capsule(local, start, end)
        distance -= np.float32(radius)
        view = self.image[where]
        view += occupancy(distance, self.softness) * (np.float32(hu) - view)
        self.labels[where][distance < 0] = tissue

    def index(self, place: Place) -> tuple[int, int, int] | None:
        """Voxel (z, y, x) that holds a place in mm, or None outside the volume."""
        found = []
        for places, step, value in zip(self._places, self.spacing, place, strict=True):
            i = round((float(value) - places[0]) / step)
            if not 0 <= i < len(places):
                return None
            found.append(i)
        return found[0], found[1], found[2]
