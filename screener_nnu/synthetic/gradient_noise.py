"""Perlin noise on the device, a field for each image of a batch."""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F

from screener_nnu.devices import small_tensor


def draw_gradients(
    count: int, nodes: int, flat: bool, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Unit vectors (count, nodes, nodes, nodes, 3) in random directions; flat ones have no z."""
    gradients = torch.randn(count, nodes, nodes, nodes, 3, generator=generator, device=device)
    if flat:
        gradients[..., 0] = 0
    return F.normalize(gradients, dim=-1)


def gradient_noise(
    points: torch.Tensor, gradients: torch.Tensor, cells: torch.Tensor
) -> torch.Tensor:
    """Perlin noise: 0 at the nodes of a lattice, and smooth between them.

    Args:
        points: in cells of the lattice, (B, 3, D, H, W).
        gradients: unit vectors at nodes, (B, n, n, n, 3).
        cells: after how many of them the lattice repeats itself along each axis, at most n, (B, 3).

    Returns:
        (B, 1, D, H, W), from -sqrt(3/4) to sqrt(3/4); of pictures, whose gradients and points have
        no z, from -sqrt(1/2) to sqrt(1/2).

    References:
        Perlin, Improving noise, SIGGRAPH 2002.
    """
    batch, nodes = gradients.shape[:2]
    table = gradients.reshape(batch, -1, 3).mT
    low = points.floor()
    part = points - low
    fade = part**3 * (part * (part * 6 - 15) + 10)
    period = cells.view(batch, 3, 1, 1, 1)
    total = torch.zeros_like(points[:, :1])
    for corner in product((0, 1), repeat=3):
        step = small_tensor(corner, points.device).view(1, 3, 1, 1, 1)
        z, y, x = (low.long() + step).remainder(period).unbind(1)
        number = ((z * nodes + y) * nodes + x).flatten(1)
        gradient = table.gather(2, number[:, None].expand(-1, 3, -1)).view_as(points)
        weight = torch.where(step == 1, fade, 1 - fade).prod(1, keepdim=True)
        total += weight * (gradient * (part - step)).sum(1, keepdim=True)
    return total
