"""Squared error of a student's outputs against the score and the descriptors of its teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from screener_nnu.plans import DistillationSettings


def distillation_loss(
    outputs: torch.Tensor | Sequence[torch.Tensor],
    targets: torch.Tensor,
    settings: DistillationSettings,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Squared error of the score, and of the descriptors where there are some.

    Args:
        outputs: of the network, (B, 1 + d, D, H, W); with deep supervision a list, finest first. A
            coarser output is compared with the mean of the target over its voxels, and weighs half
            of the next finer one; weights sum to one, as nnU-Net's do.
        targets: (B, 1 + d, D, H, W); the standardised score t comes first.
        settings: a voxel's squared error of the score weighs 1 + tail_weight * max(t, 0).

    Returns:
        Loss, and the terms of the finest output where there are several.
    """
    if isinstance(outputs, torch.Tensor):
        return _of_one_output(outputs, targets, settings)
    shares = torch.tensor([0.5**level for level in range(len(outputs))], dtype=torch.float64)
    shares = shares / shares.sum()
    levels = [_of_one_output(output, _means(targets, output), settings) for output in outputs]
    loss = torch.stack([s * one for s, (one, _) in zip(shares.tolist(), levels, strict=True)]).sum()
    return loss, levels[0][1]


def _means(targets: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Targets on the grid of an output."""
    depth, height, width = output.shape[2:]
    return F.adaptive_avg_pool3d(targets, (depth, height, width))


def _of_one_output(
    outputs: torch.Tensor, targets: torch.Tensor, settings: DistillationSettings
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    weights = 1 + settings.tail_weight * targets[:, :1].clamp_min(0)
    score = (weights * (outputs[:, :1] - targets[:, :1]).square()).sum() / weights.sum()
    if outputs.shape[1] == 1:
        return score, {}
    descriptors = F.mse_loss(outputs[:, 1:], targets[:, 1:])
    loss = score + settings.descriptor_weight * descriptors
    return loss, {"score": score.detach(), "descriptors": descriptors.detach()}
