"""Colour augmentation of crops, batched on the device, with lengths in mm.

Steps, probabilities and ranges are the authors' (five steps in a fixed order, each with its own
probability per crop); see `JitterSettings`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from screener_nnu.plans import JitterSettings
from screener_nnu.sampling.image_draws import ImageDraws


def colour_jitter(
    images: torch.Tensor,
    in_plane_spacing: torch.Tensor,
    settings: JitterSettings,
    generator: torch.Generator,
    least_spacing: float | None = None,
) -> torch.Tensor:
    """Jitters each crop by itself.

    Args:
        images: (B, C, D, H, W) in [0, 1]; colours change together.
        in_plane_spacing: (B, 2) spacing (y, x) of each crop in mm.
        settings: probability and ranges.
        generator: on the device of `images`.
        least_spacing: lower bound of the spacing in mm, where it is known: the device is not waited
            for then.
    """
    draws, likely = ImageDraws(len(images), generator), settings.probability
    least = float(in_plane_spacing.min()) if least_spacing is None else least_spacing
    images = _blur_or_sharpen(images, in_plane_spacing, least, settings, draws)
    sigma = draws.gated((0.0, settings.noise), likely, neutral=0.0)
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    images = images + sigma * noise
    images = (images * draws.gated(settings.brightness, likely, neutral=1.0)).clamp(0, 1)
    mean = images.mean(dim=(1, 2, 3, 4), keepdim=True)
    contrast = draws.gated(settings.contrast, likely, neutral=1.0)
    images = ((images - mean) * contrast + mean).clamp(0, 1)
    return images ** draws.gated(settings.gamma, likely, neutral=1.0)


def _blur_or_sharpen(
    images: torch.Tensor,
    spacing: torch.Tensor,
    least_spacing: float,
    settings: JitterSettings,
    draws: ImageDraws,
) -> torch.Tensor:
    sigma_mm = draws.within((0.0, settings.blur_sigma_mm))
    amount = draws.within((0.0, settings.sharpen))
    sharpens = draws.happens(0.5)
    applied = draws.happens(settings.probability)
    sigma = sigma_mm.view(-1, 1) / spacing.to(images)
    blurred = blur_in_plane(images, sigma, settings.blur_sigma_mm / least_spacing)
    changed = torch.where(sharpens, images + amount * (images - blurred), blurred)
    return torch.where(applied, changed, images)


def blur_in_plane(images: torch.Tensor, sigma: torch.Tensor, max_sigma: float) -> torch.Tensor:
    """Gaussian blur of each crop in y and x.

    Args:
        images: (B, C, D, H, W).
        sigma: (B, 2) standard deviation (y, x) in voxels.
        max_sigma: upper bound of `sigma`, which sets the kernel's size for the whole batch.
    """
    radius = max(1, math.ceil(4 * max_sigma))
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[..., None]) ** 2)
    kernels = kernels / kernels.sum(-1, keepdim=True)
    batch, colours, *shape = images.shape
    kernels = kernels.repeat_interleave(colours, 0)
    groups = batch * colours  # one group a crop and colour
    if shape[0] == 1:  # of planes: on processors it is two to five times as fast
        shape, convolve = shape[1:], F.conv2d
    else:
        convolve = F.conv3d
    beyond = (0,) * (2 * len(shape) - 4)
    ones = (1,) * (len(shape) - 2)
    stack = F.pad(images.reshape(1, groups, *shape), (radius,) * 4 + beyond, mode="replicate")
    stack = convolve(stack, kernels[:, 0].reshape(groups, 1, *ones, -1, 1), groups=groups)
    stack = convolve(stack, kernels[:, 1].reshape(groups, 1, *ones, 1, -1), groups=groups)
    return stack.view(images.shape)
