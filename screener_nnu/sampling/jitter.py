"""Colour augmentation of crops, batched on the device, with lengths in mm.

Steps, probabilities and ranges are the authors' (five steps in a fixed order, each with its own
probability per crop); see `JitterSettings`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from screener_nnu.plans import JitterSettings


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
    draws = _Draws(images, settings.probability, generator)
    least = float(in_plane_spacing.min()) if least_spacing is None else least_spacing
    images = _blur_or_sharpen(images, in_plane_spacing, least, settings, draws)
    sigma = draws.gated(0.0, settings.noise, neutral=0.0)
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    images = images + sigma * noise
    images = (images * draws.gated(*settings.brightness, neutral=1.0)).clamp(0, 1)
    mean = images.mean(dim=(1, 2, 3, 4), keepdim=True)
    images = ((images - mean) * draws.gated(*settings.contrast, neutral=1.0) + mean).clamp(0, 1)
    return images ** draws.gated(*settings.gamma, neutral=1.0)


class _Draws:
    """Per-crop random numbers of shape (B, 1, 1, 1, 1)."""

    def __init__(
        self, images: torch.Tensor, probability: float, generator: torch.Generator
    ) -> None:
        self.count = len(images)
        self.device = images.device
        self.probability = probability
        self.generator = generator

    def uniform(self, low: float, high: float) -> torch.Tensor:
        draws = torch.rand(self.count, generator=self.generator, device=self.device)
        return (low + (high - low) * draws).view(-1, 1, 1, 1, 1)

    def gated(self, low: float, high: float, neutral: float) -> torch.Tensor:
        value = self.uniform(low, high)
        applied = self.uniform(0.0, 1.0) < self.probability
        return torch.where(applied, value, torch.full_like(value, neutral))


def _blur_or_sharpen(
    images: torch.Tensor,
    spacing: torch.Tensor,
    least_spacing: float,
    settings: JitterSettings,
    draws: _Draws,
) -> torch.Tensor:
    sigma_mm = draws.uniform(0.0, settings.blur_sigma_mm)
    amount = draws.uniform(0.0, settings.sharpen)
    sharpens = draws.uniform(0.0, 1.0) < 0.5
    applied = draws.uniform(0.0, 1.0) < settings.probability
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
