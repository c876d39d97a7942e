"""The network of a student: the plan's UNet, or that UNet with a head on all its levels."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn

from screener_nnu.networks.planes import from_planes, is_of_planes, to_planes
from screener_nnu.networks.probed import LevelHead
from screener_nnu.networks.unet import build_unet, compute_in_float32
from screener_nnu.plans import HEAD, Plan


def build_student(
    plan: Plan, outputs: int = 1, seed: int | None = None, deep_supervision: bool = False
) -> nn.Module:
    """The network that a plan's student is.

    With `distillation.learns=head` it is the UNet with one more part, `level_head`, which alone
    learns and gives the score. The UNet's weights keep their names, so that stock nnU-Net starts
    from them, and passes over the head.

    Args:
        plan: with its settings.
        outputs: of the UNet; a head has one.
        seed: of the first weights; without it torch's global state decides.
        deep_supervision: see `build_unet`.

    Returns:
        A network (B, C, D, H, W) -> (B, outputs, D, H, W), with deep supervision a list of them.
    """
    settings = plan.settings.distillation
    network: Any = build_unet(plan, plan.channels, outputs, seed, deep_supervision=deep_supervision)
    if settings.learns != HEAD:
        return network
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network.level_head = LevelHead(network, 1, settings.hidden)
    compute_in_float32(network.level_head.out)
    # Bound to the network, so that a copy is bound to its own.
    network.forward = MethodType(_forward, network)  # type: ignore[method-assign]
    return network


def _forward(network: Any, image: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
    """Scores (B, 1, D, H, W), or of some voxels (B, n) alone, (B, 1, n, 1, 1)."""
    head: LevelHead = network.level_head
    planes = is_of_planes(network)
    seen = to_planes(image) if planes else image
    if places is not None:
        found = head.of_features(head.features_of(network, seen, places))
        return found.mT[..., None, None]
    scores = head.run(network, seen)
    return from_planes(scores, len(image)) if planes else scores
