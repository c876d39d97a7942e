"""Block masks of the condition stage."""

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
    device = generator.device
    # A picture has one slice of blocks.
    edges = [min(settings.blocks_per_axis, size) for size in crop_size]
    blocks = math.prod(edges)
    hidden = round(settings.hidden_fraction * blocks)
    rank = torch.rand(count, blocks, generator=generator, device=device).argsort(1).argsort(1)
    visible = (rank >= hidden).float()
    unmasked = torch.rand(count, 1, generator=generator, device=device) >= settings.probability
    visible = torch.where(unmasked, torch.ones_like(visible), visible)
    grid = visible.view(count, 1, *edges)
    return F.interpolate(grid, crop_size, mode="nearest")
