"""What methods of other groups see of an image: a window of its values, as [-1, 1]."""

from __future__ import annotations

import torch

from screener_nnu.plans import Plan, Range
from screener_nnu.preprocessing.modality import DEVIATIONS, MR


def window_of(plan: Plan) -> Range:
    """Values that become -1 and 1 of what a plan's method sees."""
    settings = plan.settings
    if settings.baseline.image == "equalised":
        return 0.0, 1.0
    clip, window = settings.preprocessing.hu_clip, settings.preprocessing.hu_window
    if settings.preprocessing.modality == MR:
        return DEVIATIONS
    return max(clip[0], window[0]), min(clip[1], window[1])


def scale(image: torch.Tensor, window: Range) -> torch.Tensor:
    """Values of a window in [-1, 1], others at its ends."""
    low, high = window
    return ((image.float().clamp(low, high) - low) / (high - low)) * 2 - 1


def unscale(image: torch.Tensor, window: Range) -> torch.Tensor:
    """Values of images in [-1, 1] that `scale` has made."""
    low, high = window
    return (image + 1) / 2 * (high - low) + low
