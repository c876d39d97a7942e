"""The shell of the trunk: skin, fat, muscle wall, cavity, diaphragm, lungs, and the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from screener_nnu.synthetic.anatomy import Anatomy
from screener_nnu.synthetic.canvas import Canvas, Tissue
from screener_nnu.synthetic.fields import FloatArray, ellipsoid, smooth_noise


@dataclass(frozen=True)
class Trunk:
    """Surfaces that organs are fitted to.

    Attributes:
        cavity: signed distance in mm to the inside of the muscle wall, (Z, Y, X).
        diaphragm: height of the diaphragm in mm above each place, (Z, Y, X).
        spine: centre line of the vertebral bodies (y, x) in mm, each (Z, Y, X).
        lung: signed distance in mm to the lungs.
    """

    cavity: FloatArray
    diaphragm: FloatArray
    spine: tuple[FloatArray, FloatArray]
    lung: FloatArray


def paint_trunk(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> Trunk:
    """Paints table, skin, fat, muscle, visceral fat, diaphragm and lungs."""
    paint_table(canvas, anatomy, rng)
    body = body_distance(canvas, anatomy)
    noise = smooth_noise(rng, canvas.axes, 70.0)
    back = np.clip(canvas.points[1] / anatomy.body[0], -1, 1)
    fat = np.maximum(anatomy.fat_thickness * (1 + 0.22 * noise - 0.3 * back), 4.0)
    cavity = body + fat + anatomy.muscle_thickness
    streaks = smooth_noise(rng, canvas.axes, 7.0)
    canvas.paint(body, 15.0, Tissue.SKIN)
    canvas.paint(body + 2.2, anatomy.fat + 6 * streaks, Tissue.FAT)
    canvas.paint(body + fat, anatomy.muscle - 9 * np.maximum(streaks, 0), Tissue.MUSCLE)
    # A broken layer of fat between the muscles of the wall.
    layer = np.abs(cavity - (0.5 + 0.12 * noise) * anatomy.muscle_thickness) - 1.4 * streaks
    canvas.paint(layer, -55.0)
    canvas.paint(cavity, anatomy.fat + 8 * streaks, Tissue.FAT)
    spine = spine_line(canvas, anatomy)
    back_muscle = back_muscles(canvas, anatomy, spine)
    canvas.paint(
        np.maximum(back_muscle, body + fat), anatomy.muscle - 14 * streaks**2, Tissue.MUSCLE
    )
    diaphragm = diaphragm_height(canvas, anatomy)
    lung = lung_distance(canvas, anatomy, cavity, diaphragm, spine)
    lung = np.maximum(lung, -back_muscle)
    sheet = np.maximum(np.abs(canvas.points[0] - diaphragm) * 0.75 - 1.8, cavity)
    canvas.paint(sheet, anatomy.muscle, Tissue.MUSCLE)
    # Blood pools in the dependent lung: about 80 HU denser at the back of a patient on the back.
    gravity = 45 * canvas.points[1] / anatomy.cavity[0]
    parenchyma = anatomy.lung + gravity + 14 * smooth_noise(rng, canvas.axes, 12.0)
    canvas.paint(lung, np.asarray(parenchyma, np.float32), Tissue.LUNG)
    return Trunk(cavity, diaphragm, spine, lung)


def body_distance(canvas: Canvas, anatomy: Anatomy) -> FloatArray:
    """Signed distance in mm to the skin: a superellipse with a waist and a flat back."""
    z, y, x = canvas.points
    power = np.float32(anatomy.squareness)
    waist = 1 - 0.05 * np.cos(np.clip((z - anatomy.dome + 90) / 120, -1.5, 1.5))
    half_y = anatomy.body[0] * waist * np.where(y > 0, 0.95, 1.0)
    half_x = anatomy.body[1] * waist
    u, v = np.abs(y) / half_y, np.abs(x) / half_x
    radius = np.maximum((u**power + v**power) ** (1 / power), 1e-3)
    slope = np.hypot((u / radius) ** (power - 1) / half_y, (v / radius) ** (power - 1) / half_x)
    return np.asarray((radius - 1) / slope, np.float32)


def spine_line(canvas: Canvas, anatomy: Anatomy) -> tuple[FloatArray, FloatArray]:
    """Centre (y, x) of the vertebral bodies: thoracic kyphosis, lumbar lordosis, a little tilt."""
    z = canvas.points[0]
    curve = anatomy.spine_y + 7 * np.sin((z - anatomy.dome + 50) / 85)
    tilt = anatomy.jitter[0][2] * np.sin(z / anatomy.length * 3)
    return np.asarray(curve, np.float32), np.asarray(tilt, np.float32)


def back_muscles(
    canvas: Canvas, anatomy: Anatomy, spine: tuple[FloatArray, FloatArray]
) -> FloatArray:
    """Signed distance in mm to the muscles beside the spinous processes and to the psoas."""
    z, y, x = canvas.points
    side = np.abs(x - spine[1])
    erector = ellipsoid((y - spine[0], side), (33, 27), (17, 25))
    width = np.clip(19 - 0.13 * (z - anatomy.dome + 140), 0.5, 19)
    psoas = np.hypot(y - spine[0], (side - 33) * 1.15) - width
    return np.minimum(erector, np.maximum(psoas, z - anatomy.dome + 70)).astype(np.float32)


def diaphragm_height(canvas: Canvas, anatomy: Anatomy) -> FloatArray:
    """Height in mm of the diaphragm: two domes, the right one higher, deep recesses behind."""
    _, y, x = canvas.points
    half_y, half_x = anatomy.cavity
    lateral, depth = 0.52 * half_x, 0.75 * half_y
    front = ((y + 0.15 * half_y) / depth) ** 2
    right = np.exp(-(((x + 0.5 * half_x) / lateral) ** 2) - front)
    left = np.exp(-(((x - 0.5 * half_x) / lateral) ** 2) - front)
    height = anatomy.dome - 78 + 78 * right + (66 + anatomy.jitter[1][0]) * left
    return np.asarray(height, np.float32)


def lung_distance(
    canvas: Canvas,
    anatomy: Anatomy,
    cavity: FloatArray,
    diaphragm: FloatArray,
    spine: tuple[FloatArray, FloatArray],
) -> FloatArray:
    """Signed distance in mm to both lungs: cavity above the diaphragm, without mediastinum."""
    z, y, x = canvas.points
    half_y = anatomy.cavity[0]
    mediastinum = ellipsoid((y, x), (0.05 * half_y, 4.0), (1.05 * half_y, 27.0))
    vertebra = ellipsoid((y - spine[0], x - spine[1]), (3.0, 0.0), (25.0, 25.0))
    inside = np.maximum(cavity + 3.5, 0.75 * (diaphragm + 2 - z))
    return np.maximum(inside, -np.minimum(mediastinum, vertebra)).astype(np.float32)


def paint_table(canvas: Canvas, anatomy: Anatomy, rng: np.random.Generator) -> None:
    """Paints a carbon shell with a foam core and a thin mattress under the patient."""
    _, y, x = np.meshgrid(*canvas.axes, indexing="ij", sparse=True)
    bow = rng.uniform(0.0, 0.0012)
    top = 0.95 * anatomy.body[0] + anatomy.table_gap + 6 - bow * x**2
    below = y - top
    half_width = 0.93 * anatomy.body[1]
    slab = np.maximum(np.abs(below - 11) - 11, np.abs(x) - half_width).astype(np.float32)
    mattress = np.maximum(np.abs(below + 3) - 3, np.abs(x) - half_width + 15).astype(np.float32)
    canvas.paint(mattress, float(rng.uniform(-960, -900)))
    canvas.paint(slab, float(rng.uniform(-450, -150)))
    canvas.paint(slab + 3.0, float(rng.uniform(-960, -920)))
