"""What differs from patient to patient and scan to scan, drawn once before anything is painted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from screener_nnu.synthetic.fields import Triple


@dataclass(frozen=True)
class Enhancement:
    """Mean HU of blood and parenchyma in one contrast phase."""

    blood: float
    veins: float
    liver: float
    spleen: float
    renal_cortex: float
    renal_medulla: float


# Typical means of trunk CT: without contrast, arterial and portal venous.
PHASES = (
    Enhancement(43, 40, 60, 50, 34, 30),
    Enhancement(178, 80, 76, 112, 172, 85),
    Enhancement(150, 145, 106, 118, 180, 160),
)


@dataclass(frozen=True)
class Anatomy:
    """One patient: lengths in mm, intensities in HU.

    `cavity` holds the inner half axes (y, x) of the trunk inside the muscle wall; organs are placed
    relative to it. `dome` is the height of the right diaphragm, z = 0 the lower end of the scan.
    """

    length: float
    cavity: tuple[float, float]
    fat_thickness: float
    muscle_thickness: float
    squareness: float
    dome: float
    spine_y: float
    vertebra_period: float
    rib_drop: float
    phase: Enhancement
    fat: float
    muscle: float
    lung: float
    trabecular: float
    cortical: float
    table_gap: float
    jitter: tuple[Triple, ...]

    @property
    def body(self) -> tuple[float, float]:
        """Outer half axes (y, x) of the trunk in mm."""
        wall = self.fat_thickness + self.muscle_thickness
        return self.cavity[0] + wall, self.cavity[1] + wall


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draws one patient."""
    chosen = PHASES[rng.integers(len(PHASES))]
    scatter = rng.normal(1.0, 0.05, 6)
    values = (chosen.blood, chosen.veins, chosen.liver, chosen.spleen)
    kidney = (chosen.renal_cortex, chosen.renal_medulla)
    hu = [float(v * s) for v, s in zip(values + kidney, scatter, strict=True)]
    hu[2] = float(np.clip(hu[2], 60, 110))
    hu[0] = float(np.clip(hu[0], 40, 180))
    length = float(rng.uniform(240, 320))
    cavity = (float(rng.uniform(72, 86)), float(rng.uniform(110, 123)))
    return Anatomy(
        length=length,
        cavity=cavity,
        fat_thickness=float(np.clip(rng.gamma(4.0, 3.2), 5, 24)),
        muscle_thickness=float(rng.uniform(12, 17)),
        squareness=float(rng.uniform(2.1, 2.6)),
        dome=float(length * rng.uniform(0.50, 0.62)),
        spine_y=float(cavity[0] * rng.uniform(0.55, 0.66)),
        vertebra_period=float(rng.uniform(25, 31)),
        rib_drop=float(rng.uniform(55, 90)),
        phase=Enhancement(*hu),
        fat=float(rng.normal(-102, 4)),
        muscle=float(rng.normal(52, 5)),
        lung=float(rng.normal(-855, 18)),
        trabecular=float(rng.uniform(120, 260)),
        cortical=float(rng.uniform(500, 850)),
        table_gap=float(rng.uniform(3, 8)),
        jitter=tuple(tuple(row) for row in rng.normal(0, 4.0, (12, 3)).tolist()),
    )
