"""Batch statistics of several devices: the networks stay what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from screener_nnu.descriptors.backbone import whole_network
from screener_nnu.networks.unet import build_unet
from screener_nnu.trainers.batch_statistics import synchronised


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_resnet"])
def test_networks_of_timm_keep_their_activations(architecture: str) -> None:
    network = whole_network(architecture).eval()
    pictures = torch.rand(2, 3, 64, 64)
    expected = network.forward_features(pictures)
    names = list(network.state_dict())
    converted = synchronised(network, on_gpus=True).eval()
    assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in converted.modules())
    assert torch.equal(converted.forward_features(pictures), expected)  # type: ignore[operator]
    assert list(converted.state_dict()) == names


def test_a_unet_without_batch_statistics_is_left_alone(world: Any) -> None:
    network = build_unet(world.plan(), 1, 2, seed=0)
    before = [type(module) for module in network.modules()]
    assert [type(module) for module in synchronised(network, on_gpus=True).modules()] == before
