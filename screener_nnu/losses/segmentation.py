"""Losses of networks that tell anomalies from the rest, voxel by voxel, from logits.

Voxels outside the body do not count; all is worked out in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from screener_nnu.crop_methods import body_mean


def supervision_weights(count: int) -> list[float]:
    """Weights of the outputs of a decoder, finest first: each half of the one before, in sum 1.

    Example:
        >>> supervision_weights(2)
        [0.6666666666666666, 0.3333333333333333]
    """
    weights = [0.5**n for n in range(count)]
    return [weight / sum(weights) for weight in weights]


def supervised_cross_entropy(
    outputs: Sequence[torch.Tensor], labels: torch.Tensor, bodies: torch.Tensor
) -> torch.Tensor:
    """Binary cross-entropy with soft labels, mean over the outputs of all resolutions.

    Labels and bodies are averaged over the voxels of coarser ones.

    Args:
        outputs: logits (B, 1, d, h, w), finest first.
        labels: (B, 1, D, H, W) from 0 to 1.
        bodies: masks (B, 1, D, H, W).
    """
    losses = []
    for output in outputs:
        d, h, w = output.shape[2:]
        goal, counted = (F.adaptive_avg_pool3d(v.float(), (d, h, w)) for v in (labels, bodies))
        entropy = F.binary_cross_entropy_with_logits(output.float(), goal, reduction="none")
        losses.append(body_mean(entropy, counted))
    weights = supervision_weights(len(losses))
    return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum()


def focal_loss(
    logits: torch.Tensor, masks: torch.Tensor, bodies: torch.Tensor, gamma: float
) -> torch.Tensor:
    """Cross-entropy of each voxel times (1 - p)^gamma, p the probability of its true class.

    Args:
        logits: (B, 1, D, H, W).
        masks: anomalies, (B, 1, D, H, W).
        bodies: masks (B, 1, D, H, W).
        gamma: at 0 it is the cross-entropy.

    References:
        Lin et al., Focal loss for dense object detection, ICCV 2017.
    """
    logits = logits.float()
    right = torch.where(masks, logits, -logits)
    # Not 0: a root of it has no gradient there.
    missing = torch.sigmoid(-right).clamp_min(1e-12)
    return body_mean(missing**gamma * F.softplus(-right), bodies)
