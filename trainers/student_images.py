"""Colour jitter of HU images: what a student sees changes, what it should say does not."""

from __future__ import annotations

from dataclasses import replace

import torch

from screener_nnu.plans import Plan
from screener_nnu.sampling.jitter import colour_jitter


def jittered_hu(hu: torch.Tensor, plan: Plan, generator: torch.Generator) -> torch.Tensor:
    """HU crops with another contrast, noise and sharpness, within the bounds of nnU-Net's clipping.

    Args:
        hu: (B, C, D, H, W) in HU, or in the unit of another modality.
        plan: whose bounds `CTNormalization` clips at; they are 0 and 1 of the jitter. Its settings
            give `jitter`, whose noise has the same strength in HU as in the teacher's window, and
            the spacing that blurs in mm need.
        generator: on the device of `hu`.
    """
    settings = plan.settings
    bounds = [plan.intensities_of(channel)[:2] for channel in range(plan.channels)]
    low, high = min(low for low, _ in bounds), max(high for _, high in bounds)
    in_plane = hu.new_tensor(settings.preprocessing.spacing[1:]).expand(len(hu), 2)
    images = (hu.clamp(low, high) - low) / (high - low)
    window = settings.preprocessing.hu_window
    noise = settings.jitter.noise * (window[1] - window[0]) / (high - low)
    jitter = replace(settings.jitter, noise=noise)
    return colour_jitter(images, in_plane, jitter, generator) * (high - low) + low
