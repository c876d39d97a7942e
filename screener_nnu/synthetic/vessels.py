"""Branching vessels of the lungs."""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from screener_nnu.synthetic.anatomy import Anatomy
from screener_nnu.synthetic.canvas import Canvas, Tissue
from screener_nnu.synthetic.fields import FloatArray

Vector = NDArray[np.float64]


def paint_lung_vessels(
    canvas: Canvas, anatomy: Anatomy, lung: FloatArray, rng: np.random.Generator
) -> None:
    """Grows a tree of tapering tubes from each hilum, kept inside the lung.

    Args:
        canvas: volume to paint on.
        anatomy: the patient.
        lung: signed distance in mm to the lungs, (Z, Y, X).
        rng: source of randomness.
    """
    hu = 0.6 * anatomy.phase.blood + 15
    for side in (-1, 1):
        hilum = np.array([anatomy.dome + 58, 0.12 * anatomy.cavity[0], 30.0 * side])
        for direction in _spread(rng, side):
            _grow(canvas, lung, hilum, direction, hu, rng)


def _spread(rng: np.random.Generator, side: int, count: int = 9) -> list[Vector]:
    """Directions (z, y, x) that fan out from a hilum: up, down, to the front and to the back."""
    turns = np.arange(count) * 2 * np.pi / count + rng.uniform(0, 2 * np.pi)
    outwards = rng.uniform(0.25, 1.0, count) * side
    return [np.array([np.cos(t), np.sin(t), o]) for t, o in zip(turns, outwards, strict=True)]


def _grow(
    canvas: Canvas,
    lung: FloatArray,
    root: Vector,
    direction: Vector,
    hu: float,
    rng: np.random.Generator,
) -> None:
    """One tree, branch by branch, from thick to thin (Murray's law: r^3 is kept at a fork)."""
    waiting = deque([(root, _unit(direction), rng.uniform(3.2, 4.8), 0)])
    while waiting:
        start, heading, radius, generation = waiting.popleft()
        end = _free_end(canvas, lung, start, heading, radius, generation, rng)
        if end is None:
            continue
        canvas.paint_tube(start, end, radius, hu, Tissue.LUNG_VESSEL)
        if radius < 0.55:
            continue
        heading = _unit(end - start)
        share = rng.uniform(0.35, 0.65)
        for part in (share, 1 - share):
            turned = _unit(heading + rng.normal(0, 0.42, 3))
            child = radius * float(np.cbrt(part)) * 0.97
            waiting.append((end, turned, child, generation + 1))


def _free_end(
    canvas: Canvas,
    lung: FloatArray,
    start: Vector,
    heading: Vector,
    radius: float,
    generation: int,
    rng: np.random.Generator,
) -> Vector | None:
    """End of a branch that stays clear of the pleura, after a few turns; None when there is none.

    The first branch of a tree leaves the mediastinum and may end anywhere.
    """
    for attempt in range(5):
        turned = _unit(heading + rng.normal(0, 0.3 * attempt, 3))
        end: Vector = start + turned * rng.uniform(0.7, 1.3) * (10 + 2.6 * radius)
        where = canvas.index(end.tolist())
        if where is not None and (generation == 0 or lung[where] < -max(2.5, radius)):
            return end
    return None


def _unit(vector: Vector) -> Vector:
    """Of length 1."""
    return vector / math.sqrt(vector.dot(vector))
