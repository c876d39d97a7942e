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
    found = tuple(tensors)
    for axis in range(3):
        chosen = draws[:, axis].view(-1, 1, 1, 1, 1)
        found = tuple(torch.where(chosen, tensor.flip(axis + 2), tensor) for tensor in found)
    return found
