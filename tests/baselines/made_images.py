"""Images for methods, and what a method makes of a batch that it sees again and again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def smooth(method: Any, count: int = 2) -> torch.Tensor:
    """Smooth images in [-1, 1] of the method's size."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, *(max(1, n // 8) for n in method.size), generator=generator)
    return torch.nn.functional.interpolate(coarse, method.size, mode="trilinear") * 2 - 1


def half_a_body(images: torch.Tensor) -> torch.Tensor:
    return torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) < 0.5


def weighted(values: np.ndarray, weights: np.ndarray) -> float:
    return float((values * weights).sum() / weights.sum())


def share_left(method: Any, images: torch.Tensor, steps: int = 250) -> float:
    """The loss after training on one batch with the same draws, against that before.

    The divergence of a bottleneck does not count.
    """
    bodies = torch.ones_like(images, dtype=torch.bool)
    optimiser = torch.optim.AdamW(method.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    values = []
    for step in range(steps):
        optimiser.zero_grad()
        losses = method(images, bodies, torch.Generator().manual_seed(5), step, steps)
        losses.pop("kl", None)
        loss = torch.stack(list(losses.values())).sum()
        loss.backward()
        optimiser.step()
        schedule.step()
        values.append(loss.item())
    return values[-1] / values[0]
