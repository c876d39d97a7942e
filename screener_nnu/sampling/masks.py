"""Block masks: what the condition stage and masked auto-encoders do not see."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from screener_nnu.plans import MaskSettings, Shape


def block_masks(
    count: int, crop_size: Shape, settings: MaskSettings, generator: torch.Generator
) -> torch.Tensor:
    """Independent masks (count, 1, *crop_size): 1 is seen, 0 is hidden.

    With the settings' probability a mask hides the given fraction of a grid of equal blocks,
    otherwise nothing.
    """
    # A picture has one slice of blocks.
    z, y, x = (min(settings.blocks_per_axis, size) for size in crop_size)
    visible = visible_blocks(count, crop_size, (z, y, x), settings.hidden_fraction, generator)
    drawn = torch.rand(count, 1, generator=generator, device=generator.device)
    unmasked = (drawn >= settings.probability).view(count, 1, 1, 1, 1)
    return torch.where(unmasked, torch.ones_like(visible), visible)


def visible_blocks(
    count: int, size: Shape, grid: Shape, hidden_fraction: float, generator: torch.Generator
) -> torch.Tensor:
    """Independent masks (count, 1, *size), 0 in a fraction of the blocks of a grid.

    Args:
        count: of masks.
        size: of an image.
        grid: blocks per axis; they are equal where they divide the size.
        hidden_fraction: of the blocks, rounded to whole ones.
        generator: on the device of the masks.
    """
    blocks = math.prod(grid)
    hidden = round(hidden_fraction * blocks)
    drawn = torch.rand(count, blocks, generator=generator, device=generator.device)
    visible = (drawn.argsort(1).argsort(1) >= hidden).float().view(count, 1, *grid)
    return F.interpolate(visible, size, mode="nearest")
