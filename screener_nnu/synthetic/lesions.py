"""Lesions of a phantom: five kinds, with the contrast that such lesions have in CT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from screener_nnu.synthetic.blobs import Blob, draw_blob
from screener_nnu.synthetic.canvas import Canvas, Tissue
from screener_nnu.synthetic.fields import FloatArray

Intensity = Callable[[FloatArray, np.random.Generator], FloatArray]


@dataclass(frozen=True)
class LesionKind:
    """Where a kind of lesion grows and what it looks like.

    Attributes:
        hosts: tissues that its centre may lie in.
        spread: tissues that it may replace.
        radius: smallest and largest radius in mm.
        intensity: HU of the lesion, from the HU that were there before.
    """

    hosts: tuple[Tissue, ...]
    spread: tuple[Tissue, ...]
    radius: tuple[float, float]
    intensity: Intensity


def _soft_tissue_in_lung(before: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Solid nodule, or a consolidation that still holds some air."""
    air = float(rng.choice([0.0, 0.0, rng.uniform(0.1, 0.4)]))
    return (1 - air) * np.float32(rng.uniform(10, 60)) + air * before


def _darker(before: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Metastasis or cyst of the liver: 30 to 60 HU below its surroundings."""
    return before - np.float32(rng.uniform(30, 60))


def _brighter(before: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Hyperdense renal mass: 30 to 60 HU above the parenchyma."""
    parenchyma = before[before > 0]  # without the fat around the kidney, which it bulges into
    level = float(np.percentile(parenchyma, 75)) if parenchyma.size else 40.0
    return np.full_like(before, level + rng.uniform(30, 60))


def _lytic_or_sclerotic(before: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Soft tissue in place of bone, or bone denser than it should be."""
    if rng.uniform() < 0.5:
        return np.full_like(before, rng.uniform(25, 70))
    return np.maximum(before, 0) + np.float32(rng.uniform(250, 450))


def _infiltrating(before: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Mass of the soft tissue: replaces fat, and lies a little below muscle."""
    return np.full_like(before, rng.uniform(5, 40))


_BONE = (Tissue.BONE,)
_WALL = (Tissue.FAT, Tissue.MUSCLE, Tissue.SKIN)
_LUNG = (Tissue.LUNG, Tissue.LUNG_VESSEL)
KINDS: dict[str, LesionKind] = {
    "lung": LesionKind((Tissue.LUNG,), _LUNG, (5, 20), _soft_tissue_in_lung),
    "liver": LesionKind((Tissue.LIVER,), (Tissue.LIVER,), (7, 20), _darker),
    "kidney": LesionKind((Tissue.KIDNEY,), (Tissue.KIDNEY, Tissue.FAT), (8, 18), _brighter),
    "bone": LesionKind(_BONE, (*_BONE, Tissue.DISC), (6, 14), _lytic_or_sclerotic),
    "soft_tissue": LesionKind((Tissue.FAT,), _WALL, (9, 20), _infiltrating),
}


@dataclass(frozen=True)
class Lesion:
    """Record of one painted lesion: kind, centre (z, y, x) and radius in mm."""

    kind: str
    centre: tuple[float, float, float]
    radius: float


def paint_lesions(
    canvas: Canvas, count: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[Lesion]]:
    """Paints lesions of random kinds into the tissues where they occur.

    Args:
        canvas: finished anatomy, before blur and noise.
        count: number of lesions.
        rng: source of randomness.

    Returns:
        Mask (Z, Y, X), one inside lesions, and the list of lesions.
    """
    mask = np.zeros(canvas.labels.shape, np.uint8)
    # Organ names first, in random order, so that a few lesions are of different kinds.
    names = [name for _ in range(count) for name in rng.permutation(list(KINDS))]
    lesions: list[Lesion] = []
    for name in names:
        if len(lesions) == count:
            break
        lesion = _paint_one(canvas, mask, str(name), rng)
        if lesion is not None:
            lesions.append(lesion)
    return mask, lesions


def _paint_one(
    canvas: Canvas, mask: NDArray[np.uint8], name: str, rng: np.random.Generator
) -> Lesion | None:
    """Tries places for one lesion until enough of it lies in tissue that it may replace."""
    kind = KINDS[name]
    hosts = np.flatnonzero(np.isin(canvas.labels, kind.hosts) & (mask == 0))
    # The size is drawn once: a new one for each place would favour small lesions.
    radius = float(rng.uniform(*kind.radius))
    for _ in range(30 if len(hosts) else 0):
        index = np.unravel_index(hosts[rng.integers(len(hosts))], canvas.labels.shape)
        place = [float(i * s) for i, s in zip(index, canvas.spacing, strict=True)]
        centre = (place[0], place[1], place[2])
        blob = draw_blob(rng, mask.shape, canvas.spacing, centre, radius, 1.5 * canvas.softness)
        allowed = np.isin(canvas.labels[blob.box], kind.spread)
        weight = np.where(allowed, blob.weight, 0)
        inside = weight > 0.5
        wanted = (4 / 3 * np.pi * radius**3) / float(np.prod(canvas.spacing))
        if inside.sum() < max(8, 0.25 * wanted) or mask[blob.box][inside].any():
            continue
        _replace(canvas, mask, Blob(blob.box, weight, centre, radius), kind, rng)
        return Lesion(name, centre, radius)
    return None


def _replace(
    canvas: Canvas,
    mask: NDArray[np.uint8],
    blob: Blob,
    kind: LesionKind,
    rng: np.random.Generator,
) -> None:
    """Mixes the lesion into the image and marks its voxels."""
    view = canvas.image[blob.box]
    touched = blob.weight > 0
    target = np.zeros_like(view)
    target[touched] = kind.intensity(view[touched], rng)
    view += blob.weight * (target - view)
    mask[blob.box][blob.weight > 0.5] = 1
