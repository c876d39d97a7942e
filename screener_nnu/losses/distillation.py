"""Squared error of a student's outputs against the score and the descriptors of its teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from screener_nnu.crop_methods import body_weights
from screener_nnu.plans import DistillationSettings


def distillation_loss(
    outputs: torch.Tensor | Sequence[torch.Tensor],
    targets: torch.Tensor,
    bodies: torch.Tensor,
    settings: DistillationSettings,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Squared error of the score, and of the descriptors where there are some.

    Args:
        outputs: of the network, (B, 1 + d, D, H, W); with deep supervision a list, finest first. A
            coarser output is compared with the mean of the target over its voxels, and weighs half
            of the next finer one; weights sum to one, as nnU-Net's do.
        targets: (B, 1 + d, D, H, W); the standardised score t comes first.
        bodies: (B, 1, D, H, W), 1 in the body and 0 outside.
        settings: a voxel weighs 1 in the body and air_weight outside; a coarser one the mean of its
            voxels. The error of the score weighs 1 + tail_weight * max(t, 0) beside.

    Returns:
        Loss, and the terms of the finest output where there are several.
    """
    weights = body_weights(bodies, bodies.shape, settings.air_weight)
    if isinstance(outputs, torch.Tensor):
        return _of_one_output(outputs, targets, weights, settings)
    shares = torch.tensor([0.5**level for level in range(len(outputs))], dtype=torch.float64)
    shares = shares / shares.sum()
    levels = [
        _of_one_output(output, _means(targets, output), _means(weights, output), settings)
        for output in outputs
    ]
    loss = torch.stack([s * one for s, (one, _) in zip(shares.tolist(), levels, strict=True)]).sum()
    return loss, levels[0][1]


def _means(values: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Values on the grid of an output."""
    depth, height, width = output.shape[2:]
    return F.adaptive_avg_pool3d(values, (depth, height, width))


def _of_one_output(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    settings: DistillationSettings,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    errors = (outputs - targets).square()
    of_score = weights * (1 + settings.tail_weight * targets[:, :1].clamp_min(0))
    score = _weighted_mean(errors[:, :1], of_score)
    if outputs.shape[1] == 1:
        return score, {}
    descriptors = _weighted_mean(errors[:, 1:].mean(dim=1, keepdim=True), weights)
    loss = score + settings.descriptor_weight * descriptors
    return loss, {"score": score.detach(), "descriptors": descriptors.detach()}


def _weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """0 where nothing counts, as in a crop of air that weighs nothing."""
    return (values * weights).sum() / weights.sum().clamp_min(1e-6)
