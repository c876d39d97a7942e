"""What keeps the slope of a critic near 1."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], real: Tensor, made: Tensor, shares: Tensor
) -> Tensor:
    """Mean over images of (|gradient| - 1)^2 of a critic between real and made images, float32.

    The gradient is that of the critic's number by all voxels and channels of an image; the
    penalty can be differentiated itself.

    Args:
        critic: images (B, C, D, H, W) -> numbers (B, 1) or (B,), each of its image alone.
        real, made: images, without a graph.
        shares: (B,) of the made image in the point between both, one for all its voxels.

    References:
        Gulrajani et al., Improved training of Wasserstein GANs, NeurIPS 2017.
    """
    with torch.autocast(real.device.type, enabled=False):
        weights = shares.view(-1, *[1] * (real.ndim - 1))
        between = torch.lerp(real.float(), made.float(), weights).requires_grad_(True)
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        slopes = gradient.flatten(1).norm(dim=1)
    return (slopes - 1).square().mean()
