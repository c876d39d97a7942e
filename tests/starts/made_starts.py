"""Plans of small volumes and of small pictures in memory, whose start is a given method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from screener_nnu.plans import Plan
from screener_nnu.starts import METHODS, overrides_of
from screener_nnu.starts.base import build_start
from tests.baselines.made_plans import PICTURE, VOLUME, method_plan

SIZES = {VOLUME: "[16, 16, 16]", PICTURE: "[1, 64, 96]"}
#: Every method on every kind of image that it takes.
EVERY = [(n, k) for n in METHODS for k in SIZES if (n, k) != ("tissue", PICTURE)]


def start_plan(kind: str, name: str, settings: Sequence[str] = ()) -> Plan:
    """The plan that a start is trained with, on crops of (16, 16, 16) or (1, 64, 96) voxels."""
    plan = method_plan(kind, "autoencoder")
    own = [*overrides_of(name), f"start.crop_size={SIZES[kind]}", *settings]
    return plan.with_settings(plan.settings.override(own))


def batch(plan: Plan, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Images with all tissues in them, as stock nnU-Net normalises them, and bodies."""
    drawn = torch.Generator().manual_seed(3)
    size = build_start(plan).size
    images = torch.rand(count, plan.channels, *size, generator=drawn) * 6 - 3
    bodies = torch.ones(count, 1, *size, dtype=torch.bool)
    bodies[..., :3] = False
    return images, bodies


def losses(method: Any, plan: Plan, seed: int = 0) -> dict[str, torch.Tensor]:
    """What a method makes of that batch."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = method(*batch(plan), generator, seed, 10)
    return found
