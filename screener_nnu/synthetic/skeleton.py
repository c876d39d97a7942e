"""Spine, ribs and sternum."""

from __future__ import annotations

import numpy as np

from screener_nnu.synthetic.anatomy import Anatomy
from screener_nnu.synthetic.canvas import Canvas, Tissue
from screener_nnu.synthetic.fields import FloatArray, ellipsoid, smooth_noise
from screener_nnu.synthetic.trunk import Trunk


def paint_skeleton(
    canvas: Canvas, anatomy: Anatomy, trunk: Trunk, rng: np.random.Generator
) -> None:
    """Paints ribs with their cartilage, sternum and spine."""
    mottled = smooth_noise(rng, canvas.axes, 5.0)
    marrow = np.asarray(anatomy.trabecular + 30 * mottled, np.float32)
    _paint_ribs(canvas, anatomy, trunk, marrow)
    _paint_sternum(canvas, anatomy, trunk, marrow)
    _paint_spine(canvas, anatomy, trunk, marrow, float(rng.uniform(0, 1)))


def _paint_bone(
    canvas: Canvas, distance: FloatArray, marrow: FloatArray, cortical: float, shell_mm: float
) -> None:
    """Paints a bone: a cortical shell around spongy bone."""
    canvas.paint(distance, cortical, Tissue.BONE)
    canvas.paint(distance + np.float32(shell_mm), marrow)


def _paint_ribs(canvas: Canvas, anatomy: Anatomy, trunk: Trunk, marrow: FloatArray) -> None:
    """Paints all ribs as one periodic field along a height that falls towards the front."""
    z, y, x = canvas.points
    half_y, half_x = anatomy.cavity
    angle = np.arctan2(np.abs(x) / half_x, y / half_y)  # 0 at the spine, pi at the sternum
    height = z + anatomy.rib_drop * (1 - np.cos(np.minimum(angle, 2.3))) / 2
    period = anatomy.vertebra_period
    number = np.round((height - anatomy.dome) / period)
    offset = height - anatomy.dome - number * period
    wall = trunk.cavity - 0.42 * anatomy.muscle_thickness
    # The slope towards the front stretches the height, hence the factor on the offset.
    cross = np.hypot(offset * 0.85, wall * 1.35) - 5.0
    # Floating ribs end early, true ribs turn into cartilage at the front.
    reach = np.clip(2.25 + 0.25 * (number + 1), 0.8, 2.3)
    lowest = (number + 3.4) * -period
    end = np.maximum((angle - reach) * 0.8 * half_y, (0.24 - angle) * half_y)
    rib = np.maximum(np.maximum(cross, end), lowest).astype(np.float32)
    front = np.maximum(np.maximum(cross, (reach - angle) * half_y), (0.5 - number) * period)
    cartilage = np.maximum(front, (angle - 2.95) * half_y).astype(np.float32)
    canvas.paint(cartilage, 110.0, Tissue.CARTILAGE)
    _paint_bone(canvas, rib, marrow, anatomy.cortical, 1.8)


def _paint_sternum(canvas: Canvas, anatomy: Anatomy, trunk: Trunk, marrow: FloatArray) -> None:
    """Paints the sternum in the front wall of the chest."""
    z, y, x = canvas.points
    wall = np.abs(trunk.cavity - 0.4 * anatomy.muscle_thickness) - 5.0
    plate = np.maximum(np.maximum(wall, np.abs(x) - 17), np.maximum(anatomy.dome + 5 - z, y))
    _paint_bone(canvas, plate.astype(np.float32), marrow * np.float32(0.8), anatomy.cortical, 1.6)


def _paint_spine(
    canvas: Canvas, anatomy: Anatomy, trunk: Trunk, marrow: FloatArray, phase: float
) -> None:
    """Paints vertebral bodies and discs, arches with their processes, canal and cord."""
    z, y, x = canvas.points
    back, side = y - trunk.spine[0], x - trunk.spine[1]
    period = anatomy.vertebra_period
    level = z / period + phase
    along = np.abs(level - np.floor(level) - 0.5) * period  # 0 in the middle of a vertebra
    # Vertebrae are waisted: narrower half way between their end plates.
    waist = 1.8 * np.cos(np.minimum(along / period * 2, 1) * np.pi / 2)
    column = ellipsoid((back, side), (0.0, 0.0), (15.5, 20.5)) + waist
    body = np.maximum(column, along - (period / 2 - 3.0)).astype(np.float32)
    canal = ellipsoid((back, side), (24.0, 0.0), (9.0, 11.0))
    arch_height = np.maximum(along - 0.36 * period, 0.0)
    arch = np.maximum(np.maximum(canal - 6.0, -canal), arch_height)
    lamina_drop = np.abs(along - 0.12 * period) - 0.25 * period
    spinous = np.maximum(np.maximum(np.abs(side) - 3.2, np.abs(back - 42) - 13), lamina_drop)
    transverse = np.maximum(np.hypot(back - 20 - 0.25 * np.abs(side), along) - 6.0, 9 - back)
    transverse = np.maximum(transverse, np.abs(side) - 34)
    posterior = np.minimum(np.minimum(arch, spinous), np.maximum(transverse, -canal))
    # No process reaches the fat under the skin, however thin the patient.
    posterior = np.maximum(posterior, trunk.cavity - anatomy.muscle_thickness + 2)
    canvas.paint(column, 82.0, Tissue.DISC)
    _paint_bone(canvas, body, marrow, anatomy.cortical * 0.85, 1.8)
    _paint_bone(canvas, posterior.astype(np.float32), marrow, anatomy.cortical * 0.9, 2.2)
    canvas.paint(canal, -40.0, Tissue.FAT)
    canvas.paint(canal + 3.0, 35.0, Tissue.SPINAL_CORD)
