"""Gaussian smoothing of volumes on the device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

_REACH = 3


def gaussian_smooth(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur along every axis of space that has more than one voxel; borders are repeated.

    Args:
        images: (B, C, D, H, W).
        sigma: standard deviation in voxels; 0 leaves the images as they are.
    """
    if sigma <= 0:
        return images
    radius = max(1, math.ceil(_REACH * sigma))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    batch, channels, *shape = images.shape
    blurred = images.reshape(batch * channels, 1, *shape)
    for axis, length in enumerate(shape):
        if length == 1:
            continue
        sides = [0] * 6
        sides[2 * (2 - axis)] = sides[2 * (2 - axis) + 1] = radius
        view = [1, 1, *(-1 if n == axis else 1 for n in range(3))]
        blurred = F.conv3d(F.pad(blurred, sides, mode="replicate"), kernel.view(view))
    return blurred.view(images.shape)
