"""Brightness, contrast, saturation and hue of pictures, as one linear change of their colours.

Saturation and hue are a stretch and a turn of the two chroma axes of YIQ (the colours of NTSC), as
image libraries for GPUs have it; grey levels stay, and nothing is clipped in between.
"""

from __future__ import annotations

import math

import torch

from screener_nnu.devices import small_tensor
from screener_nnu.plans import Range

#: Parts of red, green and blue in the grey level (ITU-R BT.601).
GREY = (0.299, 0.587, 0.114)
# Grey level and the two chroma axes of YIQ, and back.
_TO_YIQ = [
    list(GREY),
    [0.59590059, -0.27455667, -0.32134392],
    [0.21153661, -0.52273617, 0.31119955],
]
_TO_RGB = torch.linalg.inv(torch.tensor(_TO_YIQ, dtype=torch.float64)).tolist()
_COLOURS = 3


def between(numbers: torch.Tensor, bounds: Range) -> torch.Tensor:
    """Numbers that are uniform in [0, 1) as ones that are uniform between two bounds."""
    return bounds[0] + (bounds[1] - bounds[0]) * numbers


def is_coloured(images: torch.Tensor) -> bool:
    """Whether images (B, C, ...) have three colours."""
    return images.shape[1] == _COLOURS


def grey_level(images: torch.Tensor) -> torch.Tensor:
    """Grey level (B, 1, ...) of images (B, 3, ...); an image of one channel is its own."""
    if not is_coloured(images):
        return images
    red, green, blue = images.split(1, dim=1)
    return GREY[0] * red + GREY[1] * green + GREY[2] * blue


def colour_matrices(saturation: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Matrices (B, 3, 3) that multiply the saturation of colours and turn their hue.

    Args:
        saturation: factors (B,); 0 makes all grey.
        turns: parts of the circle of hues, (B,).
    """
    angle = 2 * math.pi * turns
    cosine, sine = saturation * angle.cos(), saturation * angle.sin()
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = (one, zero, zero), (zero, cosine, -sine), (zero, sine, cosine)
    change = torch.stack([torch.stack(row, -1) for row in rows], -2)
    to_yiq, to_rgb = (small_tensor(m, change.device).to(change) for m in (_TO_YIQ, _TO_RGB))
    return to_rgb @ change @ to_yiq
