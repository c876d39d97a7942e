"""Grey level, saturation and hue of colour pictures."""

from __future__ import annotations

import torch

#: Parts of red, green and blue in the grey level (luma of ITU-R BT.601).
GREY_WEIGHTS = (0.299, 0.587, 0.114)
_COLOURS = 3


def is_coloured(images: torch.Tensor) -> bool:
    """Whether images (B, C, ...) have three colours."""
    return images.shape[1] == _COLOURS


def grey_level(images: torch.Tensor) -> torch.Tensor:
    """Grey level (B, 1, ...) of images (B, 3, ...); an image of one channel is its own."""
    if not is_coloured(images):
        return images
    red, green, blue = images.split(1, dim=1)
    return GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue


def change_saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Moves colours away from their grey level (factor above 1) or towards it.

    Args:
        images: (B, 3, ...) in [0, 1].
        factor: one for each image, or for each pixel, of a shape that broadcasts to (B, 1, ...).

    Returns:
        (B, 3, ...), clipped to [0, 1].
    """
    grey = grey_level(images)
    return ((images - grey) * factor + grey).clamp(0, 1)


def shift_hue(images: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Turns the hue of the HSV model; value and saturation stay.

    Args:
        images: (B, 3, ...) in [0, 1].
        turns: parts of the colour circle, of a shape that broadcasts to (B, 1, ...).

    Returns:
        (B, 3, ...) in [0, 1].
    """
    red, green, blue = images.split(1, dim=1)
    value, lowest = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - lowest
    # In sixths of the circle; grey has no hue, and its chroma of 0 keeps it grey.
    divisor = chroma.clamp_min(torch.finfo(images.dtype).tiny)
    hue = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue = torch.where(value == red, (green - blue) / divisor, hue) + 6 * turns
    channels = []
    for offset in (5, 3, 1):
        place = torch.remainder(hue + offset, 6)
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.cat(channels, dim=1)
