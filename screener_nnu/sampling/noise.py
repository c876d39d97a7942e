"""Smooth random fields on the device, each voxel of them normally distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

OCTAVES, PERSISTENCE = 6, 0.8
# Wavelengths of an image that the first octave has.
_FIRST_WAVES = 1.5


def coarse_noise(shape: Sequence[int], nodes: int, generator: torch.Generator) -> torch.Tensor:
    """Standard normal noise on a coarse grid, upsampled linearly; on the generator's device.

    Between the nodes of the grid its variance is smaller than 1.

    Args:
        shape: (B, C, D, H, W).
        nodes: of the grid along an axis, at most as many as the axis has voxels.
        generator: of the draws.
    """
    size = list(shape[2:])
    grid = [min(nodes, n) for n in size]
    noise = torch.randn([*shape[:2], *grid], generator=generator, device=generator.device)
    return F.interpolate(noise, size, mode="trilinear")


def octave_noise(shape: Sequence[int], generator: torch.Generator) -> torch.Tensor:
    """Octaves of value noise of zero mean and unit variance at every voxel, float32.

    An octave is white noise on a lattice that is interpolated linearly, and divided by what its
    standard deviation at a voxel is then. The first lattice has 1.5 cells along an axis, each
    further one twice as many until a cell is a voxel. The octave i weighs 0.8^i.

    Args:
        shape: (B, C, D, H, W).
        generator: of the draws; its device is that of the field.
    """
    device = generator.device
    total = torch.zeros(list(shape), device=device)
    for octave in range(OCTAVES):
        weights = [
            _interpolation(n, max(1.0, n / (_FIRST_WAVES * 2**octave)), device) for n in shape[2:]
        ]
        lattice = [*shape[:2], *(w.shape[1] for w in weights)]
        field = torch.randn(lattice, generator=generator, device=device)
        with torch.autocast(device.type, enabled=False):
            for axis, weight in zip((2, 3, 4), weights, strict=True):
                field = (field.movedim(axis, -1) @ weight.T).movedim(-1, axis)
        total += PERSISTENCE**octave * field
    return total / math.sqrt(sum(PERSISTENCE ** (2 * octave) for octave in range(OCTAVES)))


def _interpolation(length: int, cell: float, device: torch.device) -> torch.Tensor:
    """Weights (length, nodes) of the nodes of a lattice, of unit Euclidean length a voxel."""
    places = torch.arange(length, device=device) / cell
    nodes = torch.arange(math.ceil((length - 1) / cell) + 1, device=device)
    weights = (1 - (places[:, None] - nodes).abs()).clamp_min(0)
    return weights / weights.norm(dim=1, keepdim=True)
