"""Mirrored and turned crops: box and matching voxels go through one transform.

An orientation is an orthogonal matrix R (3, 3) of axes (z, y, x): what lies at v mm from the centre
of the crop lies at R v mm from the centre of the box. Turning in mm keeps the shape of the anatomy
whatever the spacing. What a turned crop shows beyond its box is air, as beyond the volume.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from screener_nnu.plans import Shape, Spacing
from screener_nnu.sampling.crops import Box, as_batch

_MIN_VISIBLE = 32


def draw_orientations(
    count: int, flip_probability: float, rotation_degrees: float, generator: torch.Generator
) -> torch.Tensor:
    """Orientations (count, 3, 3): mirrored per axis, then turned in plane.

    Args:
        count: of crops, which are drawn independently.
        flip_probability: of mirroring an axis.
        rotation_degrees: largest angle, of either sign; the angle is uniform up to it.
        generator: on the device of the result.
    """
    device = generator.device
    mirrored = torch.rand(count, 3, generator=generator, device=device) < flip_probability
    signs = torch.where(mirrored, -1.0, 1.0)
    draws = torch.rand(count, generator=generator, device=device)
    angle = math.radians(rotation_degrees) * (2 * draws - 1)
    turn = torch.eye(3, device=device).repeat(count, 1, 1)
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    return turn * signs[:, None, :]


def resize_oriented(
    images: list[torch.Tensor], crop_size: Shape, orientations: torch.Tensor, spacing: Spacing
) -> torch.Tensor:
    """Resizes boxes as `resize_boxes` does, each in its orientation.

    Args:
        images: boxes (D, H, W) or (C, D, H, W) of any size.
        crop_size: of the result.
        orientations: (B, 3, 3).
        spacing: of the stored image, in mm.

    Returns:
        (B, C, *crop_size), trilinear; 0 beyond the box.
    """
    crops = []
    for image, orientation in zip(images, orientations, strict=True):
        matrix = between_cubes(orientation, tuple(image.shape[-3:]), spacing)  # type: ignore[arg-type]
        # torch's grids have axes (x, y, z).
        theta = F.pad(matrix.flip(0, 1), (0, 1))[None]
        grid = F.affine_grid(theta, [1, 1, *crop_size], align_corners=False)
        values = F.grid_sample(as_batch(image), grid, padding_mode="border", align_corners=False)
        crops.append(values * (grid.abs().amax(-1) <= 1)[:, None])
    return torch.cat(crops)


def to_oriented_crop(
    points: torch.Tensor, box: Box, crop_size: Shape, orientation: torch.Tensor, spacing: Spacing
) -> torch.Tensor:
    """Coordinates (n, 3) in stored voxels as those of the crop; see `to_crop`."""
    start, size, crop = (points.new_tensor(v) for v in (box.start, box.size, crop_size))
    in_box = (points - start + 0.5) / size * 2 - 1
    in_crop = in_box @ between_cubes(orientation.T, box.size, spacing).T
    return (in_crop + 1) / 2 * crop - 0.5


def match_oriented(
    points: torch.Tensor,
    boxes: tuple[Box, Box],
    crop_size: Shape,
    orientations: torch.Tensor,
    spacing: Spacing,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Voxels that both crops show, and the orientations that show them.

    A pair that would share next to nothing once turned is left upright.

    Args:
        points: (n, 3) voxels of the overlap of the boxes.
        boxes: of the pair.
        crop_size: of both crops.
        orientations: (2, 3, 3).
        spacing: of the stored image, in mm.

    Returns:
        Crop coordinates (m, 3) in the first and in the second crop, and orientations (2, 3, 3).
    """
    first, second = (
        to_oriented_crop(points, box, crop_size, orientation, spacing)
        for box, orientation in zip(boxes, orientations, strict=True)
    )
    visible = _within(first, crop_size) & _within(second, crop_size)
    if int(visible.sum()) >= min(_MIN_VISIBLE, len(points)):
        return first[visible], second[visible], orientations
    upright = torch.eye(3, device=points.device).repeat(2, 1, 1)
    return match_oriented(points, boxes, crop_size, upright, spacing)


def _within(points: torch.Tensor, crop_size: Shape) -> torch.Tensor:
    """Which points (n, 3) lie in the voxels of the crop, with room for rounding."""
    edge = points.new_tensor(crop_size) - 0.5
    return ((points > -0.501) & (points < edge + 0.001)).all(-1)


def between_cubes(orientation: torch.Tensor, size: Shape, spacing: Spacing) -> torch.Tensor:
    """The orientation on coordinates that run from -1 to 1 over a box of that size."""
    extent = orientation.new_tensor([n * s for n, s in zip(size, spacing, strict=True)])
    return orientation * extent[None, :] / extent[:, None]
