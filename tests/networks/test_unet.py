"""The plan's UNet: its last layer stays in float32, in copies as well."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from screener_nnu.networks.outputs import join_outputs, split_outputs
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import Plan


@pytest.fixture
def plan(made_world: Any) -> Plan:
    return made_world.plan()


def test_output_is_computed_in_float32(plan: Plan) -> None:
    network = build_unet(plan, 1, 2, seed=1).eval()
    seen: list[torch.Tensor] = []
    network.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    image = torch.randn(1, 1, 12, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(image)
    assert seen[0].dtype == torch.bfloat16 and found.dtype == torch.float32
    last = network.decoder.seg_layers[-1]
    expected = torch.nn.functional.conv3d(seen[0].float(), last.weight, last.bias)
    torch.testing.assert_close(found, expected)


def test_a_copy_uses_its_own_weights(plan: Plan) -> None:
    network = build_unet(plan, 1, 2, seed=1).eval()
    other = copy.deepcopy(network)
    image = torch.randn(1, 1, 12, 16, 16)
    with torch.no_grad():
        before = network(image)
        other.decoder.seg_layers[-1].weight.zero_()
        other.decoder.seg_layers[-1].bias.fill_(3.0)
        assert torch.equal(network(image), before)
        assert torch.equal(other(image), torch.full_like(before, 3.0))


def test_outputs_are_parted_and_joined(plan: Plan) -> None:
    """The first outputs alone make a network that gives the first outputs."""
    network, alone = build_unet(plan, 1, 5, seed=1).eval(), build_unet(plan, 1, 2, seed=9).eval()
    first, rest = split_outputs(network.state_dict(), 2)
    alone.load_state_dict(first)
    image = torch.randn(1, 1, 12, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(alone(image), network(image)[:, :2])
    joined = join_outputs(first, rest)
    assert joined.keys() == network.state_dict().keys()
    assert all(torch.equal(joined[k], v) for k, v in network.state_dict().items())
