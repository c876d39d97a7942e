"""A density belongs to the networks it was trained on."""

from __future__ import annotations

import torch
from torch import nn

from screener_nnu.conditions import build_condition
from screener_nnu.scoring.teacher import FeatureExtractor


def extractor(seed: int) -> FeatureExtractor:
    torch.manual_seed(seed)
    condition = build_condition("masking_invariant", network=nn.Conv3d(2, 3, 1), channels=3)
    return FeatureExtractor(nn.Conv3d(1, 4, 1), condition, (2, 2, 2))


def test_identity_follows_every_weight() -> None:
    assert extractor(0).identity() == extractor(0).identity()
    assert extractor(0).identity() != extractor(1).identity()
    changed = extractor(0)
    with torch.no_grad():
        changed.condition.network.bias[2] += 1e-3
    assert changed.identity() != extractor(0).identity()
