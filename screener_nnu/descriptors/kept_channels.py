"""A seeded random subset of channels, drawn once for maps that are concatenated."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def draw_channels(total: int, most: int, seed: int) -> torch.Tensor:
    """Indices, rising, of at most so many channels; all of them where `most` is 0.

    A fixed random subset keeps a full covariance affordable and loses little (PaDiM, Defard et al.,
    arXiv 2011.08785, section IV).

    Example:
        >>> draw_channels(4, 0, 0), len(draw_channels(400, 100, 0))
        (tensor([0, 1, 2, 3]), 100)
    """
    if most == 0 or most >= total:
        return torch.arange(total)
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(total, generator=generator)[:most].sort().values


def of_each_map(kept: torch.Tensor, widths: Sequence[int]) -> list[torch.Tensor]:
    """Splits indices into concatenated channels into the indices of each map.

    Args:
        kept: (n,), rising.
        widths: channels of the maps, in the order in which they are concatenated.

    Example:
        >>> of_each_map(torch.tensor([0, 3, 4]), [2, 3])
        [tensor([0]), tensor([1, 2])]
    """
    parts, first = [], 0
    for width in widths:
        parts.append(kept[(kept >= first) & (kept < first + width)] - first)
        first += width
    return parts
