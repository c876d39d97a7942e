"""Gaussian smoothing of volumes on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F

from screener_nnu.networks.unet import in_full_precision

_REACH = 3


def gaussian_smooth(
    images: torch.Tensor, sigma: float | Sequence[float], reach: int | None = None
) -> torch.Tensor:
    """Gaussian blur along every axis of space that has more than one voxel; borders are repeated.

    Computed in float32, under autocast as well.

    Args:
        images: (B, C, D, H, W).
        sigma: standard deviation in voxels, perhaps one an axis; 0 leaves an axis as it is.
        reach: voxels on either side that count; by default three standard deviations.

    Returns:
        (B, C, D, H, W) float32.
    """
    sigmas = [sigma] * 3 if isinstance(sigma, (int, float)) else sigma
    images = images.float()
    # Products with a band matrix: a convolution on a GPU may round to 10 bits, and variances are
    # small differences.
    with in_full_precision(images.device.type):
        for axis, width in zip((2, 3, 4), sigmas, strict=True):
            if images.shape[axis] > 1 and width > 0:
                radius = max(1, math.ceil(_REACH * width)) if reach is None else reach
                if torch.compiler.is_compiling():
                    images = _convolved(images, axis, width, radius)
                    continue
                band = _band(images.shape[axis], width, radius, images.device)
                images = (images.movedim(axis, -1) @ band).movedim(-1, axis)
    return images


def _convolved(images: torch.Tensor, axis: int, sigma: float, radius: int) -> torch.Tensor:
    """What a band matrix makes, for a traced graph, which would make the matrix at every call."""
    channels, shape, padding = images.shape[1], [1, 1, 1], [0] * 6
    shape[axis - 2] = 2 * radius + 1
    padding[8 - 2 * axis] = padding[9 - 2 * axis] = radius
    kernel = _kernel(sigma, radius, images.device).reshape(1, 1, *shape)
    weight = kernel.repeat(channels, 1, 1, 1, 1)
    return F.conv3d(F.pad(images, padding, mode="replicate"), weight, groups=channels)


def _kernel(sigma: float, radius: int, device: torch.device) -> torch.Tensor:
    """Gaussian weights (2 * radius + 1,) that sum to 1."""
    offsets = torch.arange(-radius, radius + 1, device=device)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


@lru_cache(maxsize=64)
def _band(length: int, sigma: float, radius: int, device: torch.device) -> torch.Tensor:
    """(length, length), whose column i holds the Gaussian weights of the voxels around i."""
    kernel = _kernel(sigma, radius, device)
    places = torch.arange(length, device=device)
    apart = places[:, None] - places
    weights = kernel[(apart + radius).clamp(0, 2 * radius)] * (apart.abs() <= radius)
    # What lies beyond a border counts as the voxel at it.
    beyond = F.pad(kernel.cumsum(0), (1, 0))
    below, above = (beyond[(radius - n).clamp(min=0)] for n in (places, length - 1 - places))
    first, last = (places == 0).float(), (places == length - 1).float()
    return weights + torch.outer(first, below) + torch.outer(last, above)
