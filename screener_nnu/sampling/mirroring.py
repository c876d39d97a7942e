"""Mirroring of crops, of images and what belongs to them together."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def mirrored(
    tensors: Sequence[torch.Tensor], generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Each crop mirrored along every axis with probability 0.5, alike in all tensors.

    Args:
        tensors: each (B, C, D, H, W).
        generator: on their device.
    """
    count, device = len(tensors[0]), tensors[0].device
    draws = torch.rand(count, 3, generator=generator, device=device) < 0.5
    axes = [[axis + 1 for axis, flip in enumerate(row) if flip] for row in draws.tolist()]
    return tuple(
        torch.stack([one.flip(flips) for one, flips in zip(tensor, axes, strict=True)])
        for tensor in tensors
    )
