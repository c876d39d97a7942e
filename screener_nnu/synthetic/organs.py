"""Heart, great vessels, airways and the organs of the upper abdomen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from screener_nnu.synthetic.anatomy import Anatomy
from screener_nnu.synthetic.canvas import Canvas, Tissue
from screener_nnu.synthetic.fields import FloatArray, Triple, ellipsoid, smooth_noise
from screener_nnu.synthetic.trunk import Trunk


class OrganPainter:
    """Paints the organs of one patient, from the deepest to those that cover them.

    Args:
        canvas: volume with the trunk already painted.
        anatomy: the patient.
        trunk: surfaces of the trunk.
        rng: source of randomness.
    """

    def __init__(
        self, canvas: Canvas, anatomy: Anatomy, trunk: Trunk, rng: np.random.Generator
    ) -> None:
        """Prepares the surface noise and texture that all organs share."""
        self.canvas, self.anatomy, self.trunk, self.rng = canvas, anatomy, trunk, rng
        self.surface = smooth_noise(rng, canvas.axes, 22.0)
        self.texture = smooth_noise(rng, canvas.axes, 6.0)
        z = canvas.points[0]
        self.abdomen = np.maximum(trunk.cavity + 2.5, 0.75 * (z - trunk.diaphragm + 3.0))

    def paint(self) -> None:
        """Paints everything."""
        self._stomach()
        self._bowel()
        self._spleen()
        self._kidneys()
        self._liver()
        self._heart()
        self._great_vessels()
        self._airways()

    def _organ(self, centre: Triple, half_axes: Triple, jitter: int, rough: float) -> FloatArray:
        """Ellipsoid with a lumpy surface; centre (z from the dome, y and x in half axes)."""
        half_y, half_x = self.anatomy.cavity
        place = (self.anatomy.dome + centre[0], centre[1] * half_y, centre[2] * half_x)
        moved = np.add(place, self.anatomy.jitter[jitter]).tolist()
        distance = ellipsoid(self.canvas.points, moved, half_axes)
        return distance + np.float32(rough) * self.surface

    def _stomach(self) -> None:
        """Wall, contents and, anteriorly, gas above a level."""
        size = float(self.rng.uniform(0.75, 1.15))
        half_axes = (44 * size, 34 * size, 38 * size)
        stomach = np.maximum(self._organ((-48, -0.28, 0.42), half_axes, 2, 2.5), self.abdomen + 2)
        gas = float(self.rng.uniform(0.0, 0.6))
        level = self.anatomy.cavity[0] * -0.28 + half_axes[1] * (2 * gas - 1)
        lumen = stomach + 4.5
        food = float(self.rng.uniform(5, 70))
        self.canvas.paint(stomach, 55.0, Tissue.STOMACH)
        self.canvas.paint(lumen, food + 12 * self.texture, Tissue.STOMACH)
        flat = np.maximum(lumen, self.canvas.points[1] - level).astype(np.float32)
        self.canvas.paint(flat, -985.0, Tissue.STOMACH)

    def _bowel(self) -> None:
        """Loops that wander through the visceral fat, some with gas, some with contents."""
        half_y, half_x = self.anatomy.cavity
        for _ in range(int(self.rng.integers(7, 12))):
            place = np.array(
                [
                    self.rng.uniform(-10, max(self.anatomy.dome - 85, 30)),
                    self.rng.uniform(-0.8, 0.1) * half_y,
                    self.rng.uniform(-0.75, 0.75) * half_x,
                ]
            )
            radius = float(self.rng.uniform(7, 15))
            filling = float(self.rng.choice([-800.0, 20.0, 30.0, 45.0]))
            self._loop(place, radius, filling)

    def _loop(self, place: NDArray[np.float64], radius: float, filling: float) -> None:
        """One loop: a bent tube, its wall first and its contents afterwards."""
        heading = self.rng.normal(0, 1, 3)
        path = [place]
        for _ in range(6):
            heading = heading / np.linalg.norm(heading) + self.rng.normal(0, 0.45, 3)
            following = path[-1] + heading / np.linalg.norm(heading) * radius * 1.1
            where = self.canvas.index(following)
            if where is None or self.abdomen[where] > -radius:
                heading = -heading
                continue
            path.append(following)
        for wall, hu in ((0.0, 50.0), (2.5, filling)):
            for start, end in zip(path, path[1:], strict=False):
                self.canvas.paint_tube(start, end, radius - wall, hu, Tissue.BOWEL)

    def _spleen(self) -> None:
        """Under the left dome, against the wall."""
        size = float(self.rng.uniform(0.85, 1.2))
        spleen = self._organ((-48, 0.38, 0.74), (44 * size, 36 * size, 24 * size), 3, 2.5)
        spleen = np.maximum(spleen, self.abdomen + 1.5)
        self.canvas.paint(spleen, self.anatomy.phase.spleen + 4 * self.texture, Tissue.SPLEEN)

    def _kidneys(self) -> None:
        """Cortex, medulla and the fat of the sinus; the right one lies lower."""
        phase = self.anatomy.phase
        for jitter, side, lower in ((4, -1.0, 12.0), (5, 1.0, 0.0)):
            centre = (-98 - lower, 0.52, 0.5 * side)
            kidney = np.maximum(self._organ(centre, (52, 25, 27), jitter, 1.5), self.abdomen + 3)
            hilum = (-98 - lower, 0.40, 0.36 * side)
            sinus = self._organ(hilum, (22, 12, 17), jitter, 2.0)
            self.canvas.paint(kidney, phase.renal_cortex, Tissue.KIDNEY)
            medulla = np.maximum(kidney + 6.5, 3.0 - sinus)
            self.canvas.paint(medulla, phase.renal_medulla + 5 * self.texture)
            self.canvas.paint(np.maximum(sinus, kidney - 2), self.anatomy.fat + 25, Tissue.FAT)

    def _liver(self) -> None:
        """Fills the right dome, tapers to the left, is hollow beneath; veins and gallbladder."""
        z, y, x = self.canvas.points
        half_y, half_x = self.anatomy.cavity
        liver = self._organ((-62, -0.08, -0.40), (78, 0.98 * half_y, 0.80 * half_x), 6, 3.0)
        height = z - self.anatomy.dome
        hollow = 0.42 * (x + 0.42 * half_x) + 0.5 * y - 0.72 * (height + 78) - 26
        liver = np.maximum(np.maximum(liver, hollow), self.abdomen).astype(np.float32)
        phase = self.anatomy.phase
        self.canvas.paint(liver, phase.liver + 3.5 * self.texture, Tissue.LIVER)
        # Veins are the zero lines of two smooth fields: thin, branching, ending at the surface.
        first, second = (smooth_noise(self.rng, self.canvas.axes, 30.0) for _ in range(2))
        vein = np.maximum(np.hypot(first, second) * 24 - 3.2, liver + 7).astype(np.float32)
        self.canvas.paint(vein, phase.veins, Tissue.LIVER)
        if self.rng.uniform() < 0.8:
            bladder = self._organ((-92, -0.30, -0.30), (26, 14, 14), 7, 1.0)
            self.canvas.paint(np.maximum(bladder, self.abdomen), 8.0, Tissue.BOWEL)

    def _heart(self) -> None:
        """Epicardial fat, myocardium and chambers filled with blood."""
        z, y, x = self.canvas.points
        half_y, half_x = self.anatomy.cavity
        base = 0.75 * (self.trunk.diaphragm + 1 - z)
        heart = self._organ((32, -0.32, 0.16), (50, 0.52 * half_y, 0.42 * half_x), 8, 2.5)
        heart = np.maximum(np.maximum(heart, base), self.trunk.cavity + 4).astype(np.float32)
        self.canvas.paint(heart - 3.5, self.anatomy.fat + 15, Tissue.FAT)
        self.canvas.paint(heart, 0.45 * self.anatomy.phase.blood + 42, Tissue.HEART)
        chambers = (((30, -0.46, 0.30), (32, 18, 20)), ((36, -0.5, -0.06), (34, 18, 17)))
        atria = (((52, -0.02, 0.16), (18, 13, 26)), ((40, -0.14, -0.16), (26, 16, 14)))
        for centre, half_axes in chambers + atria:
            chamber = np.maximum(self._organ(centre, half_axes, 8, 1.5), heart + 4)
            self.canvas.paint(chamber, self.anatomy.phase.blood + 3 * self.texture, Tissue.HEART)

    def _great_vessels(self) -> None:
        """Aorta (calcified in some), inferior vena cava, ascending aorta, pulmonary trunk."""
        z, y, x = self.canvas.points
        spine_y, spine_x = self.trunk.spine
        dome, phase = self.anatomy.dome, self.anatomy.phase
        radius = float(self.rng.uniform(9.5, 13.5))
        swing = 9 * np.clip((z - dome) / 80, -0.3, 1.5)
        aorta = (np.hypot(y - spine_y + 27, x - spine_x - 12 - swing) - radius).astype(np.float32)
        cava = np.hypot(y - spine_y + 29, (x - spine_x + 19) * 0.85) - 9.5
        cava = np.maximum(cava, z - dome - 12).astype(np.float32)
        front = -0.12 * self.anatomy.cavity[0]
        above = dome + 62 - z
        ascending = np.maximum(np.hypot(y - front, x + 14) - radius - 2, above).astype(np.float32)
        trunk = np.hypot(y - front + 8, x - 18 - 0.2 * (z - dome - 70)) - 11.5
        pulmonary = np.maximum(trunk, np.maximum(above, z - dome - 100)).astype(np.float32)
        for vessel, hu in (
            (cava, phase.veins),
            (pulmonary, phase.blood),
            (ascending, phase.blood),
            (aorta, phase.blood),
        ):
            self.canvas.paint(vessel, hu, Tissue.BLOOD_VESSEL)
        if self.rng.uniform() < 0.5:
            plaque = np.maximum(np.abs(aorta + 1) - 1.2, 9 - 9 * self.texture)
            self.canvas.paint(plaque, float(self.rng.uniform(300, 700)))

    def _airways(self) -> None:
        """Trachea with its wall, the bifurcation and both main bronchi."""
        carina = np.array([self.anatomy.dome + 78, 0.12 * self.anatomy.cavity[0], 0.0])
        top = carina + [120, -6, 0]
        for wall, hu in ((1.8, 40.0), (0.0, -990.0)):
            self.canvas.paint_tube(carina, top, 8.0 + wall, hu, Tissue.AIRWAY)
            for side in (-1, 1):
                end = carina + [-22, 5, 36 * side]
                self.canvas.paint_tube(carina, end, 5.5 + wall, hu, Tissue.AIRWAY)
