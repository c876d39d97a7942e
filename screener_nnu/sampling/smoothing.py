"""Gaussian smoothing of volumes on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

_REACH = 3


def gaussian_smooth(images: torch.Tensor, sigma: float | Sequence[float]) -> torch.Tensor:
    """Gaussian blur along every axis of space that has more than one voxel; borders are repeated.

    Args:
        images: (B, C, D, H, W).
        sigma: standard deviation in voxels, perhaps one an axis; 0 leaves an axis as it is.
    """
    sigmas = [sigma] * 3 if isinstance(sigma, (int, float)) else sigma
    if max(sigmas) <= 0:
        return images
    batch, channels, *shape = images.shape
    blurred = images.reshape(batch * channels, 1, *shape)
    for axis, (length, width) in enumerate(zip(shape, sigmas, strict=True)):
        if length == 1 or width <= 0:
            continue
        radius = max(1, math.ceil(_REACH * width))
        offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
        kernel = torch.exp(-0.5 * (offsets / width) ** 2)
        kernel = kernel / kernel.sum()
        sides = [0] * 6
        sides[2 * (2 - axis)] = sides[2 * (2 - axis) + 1] = radius
        view = [1, 1, *(-1 if n == axis else 1 for n in range(3))]
        blurred = F.conv3d(F.pad(blurred, sides, mode="replicate"), kernel.view(view))
    return blurred.view(images.shape)
