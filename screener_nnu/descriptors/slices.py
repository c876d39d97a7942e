"""Slices of a volume with their neighbours, as networks of pictures take them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from screener_nnu.descriptors.cells import average_cells
from screener_nnu.plans import Shape

SliceNetwork = Callable[[torch.Tensor], list[torch.Tensor]]


def with_neighbours(volume: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Slices with the one before and the one behind as further channels.

    Args:
        volume: (D, H, W).
        first, last: slices first .. last - 1 are asked for.

    Returns:
        (last - first, 3, H, W): before, itself, behind; the outermost slices are their own
        neighbours.

    Example:
        >>> with_neighbours(torch.arange(4.0).view(4, 1, 1), 0, 2)[..., 0, 0]
        tensor([[0., 0., 1.],
                [0., 1., 2.]])
    """
    index = torch.arange(first, last, device=volume.device)[:, None]
    steps = torch.arange(-1, 2, device=volume.device)
    return volume[(index + steps).clamp(0, len(volume) - 1)]


def pooled_slices(
    volume: torch.Tensor,
    network: SliceNetwork,
    strides: list[tuple[int, int]],
    shape: Shape,
    pooling: Shape,
    at_once: int,
    colours: int = 3,
) -> torch.Tensor:
    """Features of every slice along the first axis, concatenated and pooled.

    Args:
        volume: (1, D, H, W), or (3, D, H, W) in colour; slices filled up to multiples of the
            strides.
        network: (n, colours, H, W) -> maps (n, C, H / s, W / s), one for each stride.
        strides: of the maps, of both axes of a slice.
        shape: of the volume without what fills up the slices.
        pooling: see `average_cells`.
        at_once: slices that the network is given at a time, about.
        colours: 3 for a slice with its neighbours, 1 for the slice alone; of a volume in colour
            3 for its own, 1 for their mean.

    Returns:
        (1, channels, D // p, H // p, W // p), float32.
    """
    depth, p = volume.shape[1], pooling[0]
    step = max(1, at_once // p) * p
    parts = []
    for first in range(0, depth - depth % p, step):
        last = min(first + step, depth - depth % p)
        maps = network(_slices(volume, first, last, colours))
        pooled = []
        for features, (s, t) in zip(maps, strides, strict=True):
            cells = features.float().transpose(0, 1)[None]
            size = (last - first, *shape[1:])
            pooled.append(average_cells(cells, (1, s, t), size, pooling))
        parts.append(torch.cat(pooled, dim=1))
    return torch.cat(parts, dim=2)


def _slices(volume: torch.Tensor, first: int, last: int, colours: int) -> torch.Tensor:
    """Slices (last - first, colours, H, W), see `pooled_slices`."""
    if len(volume) == 1:
        stack = with_neighbours(volume[0], first, last)
        return stack if colours == 3 else stack[:, 1:2]
    stack = volume[:, first:last].transpose(0, 1)
    return stack if colours == 3 else stack.mean(1, keepdim=True)
