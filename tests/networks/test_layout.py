"""Channels last: where it is used, and that it changes rounding alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from screener_nnu.networks.layout import for_training, laid_out_plainly


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1),
        nn.InstanceNorm3d(4),
        nn.Sequential(nn.Conv3d(4, 8, 2, stride=2), nn.ConvTranspose3d(8, 3, 2, stride=2)),
    )


@pytest.mark.parametrize("capability", ["AVX2", "AVX512", "DEFAULT"])
def test_only_where_it_was_measured(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    made = for_training(network(), torch.device("cpu"))
    last = made[2][0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert last is (capability == "AVX2")
    elsewhere = for_training(network(), torch.device("meta"))
    assert elsewhere[2][0].weight.is_contiguous()


def test_outputs_and_gradients_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    plain, last = network(), for_training(network(), torch.device("cpu"))
    image = torch.randn(2, 1, 8, 8, 8)
    outputs = [one(image) for one in (plain, last)]
    assert outputs[1].is_contiguous(memory_format=torch.channels_last_3d)  # maps follow
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-4)
    for output in outputs:
        output.square().sum().backward()
    for one, other in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, atol=1e-4, rtol=1e-3)
    # Weights that are loaded keep the layout.
    last.load_state_dict(plain.state_dict())
    assert last[0].weight.is_contiguous(memory_format=torch.channels_last_3d)


def test_files_hold_plain_tensors_and_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    weights = for_training(network(), torch.device("cpu")).state_dict()
    weights["again"] = weights["2.0.weight"]
    plain = laid_out_plainly(weights)
    assert all(value.is_contiguous() for value in plain.values())
    assert plain["again"] is plain["2.0.weight"] and plain["0.bias"] is weights["0.bias"]
    for name, value in weights.items():
        torch.testing.assert_close(plain[name], value, atol=0, rtol=0)
