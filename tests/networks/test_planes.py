"""Networks of planes beside stock nnU-Net's two-dimensional ones, which hold the same weights."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from screener_nnu.networks.planes import from_planes, is_of_planes, to_planes
from screener_nnu.networks.unet import build_unet
from screener_nnu.planners.architecture import plan_architecture
from screener_nnu.planners.presets import preset_named
from screener_nnu.plans import StockPlan

torch.set_num_threads(1)
DEPTH = 3


@pytest.fixture(params=["cpu", "balanced"])
def plan(request: pytest.FixtureRequest) -> StockPlan:
    architecture = plan_architecture((999.0, 2.0, 2.0), (1, 32, 32), preset_named(request.param))
    arguments = architecture["arch_kwargs"]
    arguments["features_per_stage"] = [4 * 2**i for i in range(arguments["n_stages"])]
    return StockPlan({"configurations": {"2d": {"architecture": architecture}}})


def stock(plan: StockPlan, inputs: int, outputs: int, deep_supervision: bool = False) -> Any:
    """What stock nnU-Net builds, without our depth axis."""
    architecture = plan.architecture
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        inputs,
        outputs,
        deep_supervision=deep_supervision,
    )


def images(channels: int = 1) -> torch.Tensor:
    return torch.rand(2, channels, DEPTH, 32, 32, generator=torch.Generator().manual_seed(1))


def plane_by_plane(network: Any, image: torch.Tensor) -> torch.Tensor:
    return torch.stack([network(image[:, :, z]) for z in range(image.shape[2])], dim=2)


def test_planes_are_put_into_the_batch_and_back() -> None:
    image = images(3)
    planes = to_planes(image)
    assert planes.shape == (2 * DEPTH, 3, 32, 32)
    assert torch.equal(planes[4], image[1, :, 1])
    assert torch.equal(from_planes(planes, 2), image)


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_equals_the_network_on_each_plane(plan: StockPlan, channels: int) -> None:
    network = build_unet(plan, channels, 5, seed=3).eval()
    other = stock(plan, channels, 5).eval()
    assert is_of_planes(network)
    state = network.state_dict()
    assert state.keys() == other.state_dict().keys()
    other.load_state_dict(state)
    image = images(channels)
    torch.testing.assert_close(network(image), plane_by_plane(other, image))


@torch.no_grad()
def test_outputs_of_deep_supervision_have_their_planes(plan: StockPlan) -> None:
    network = build_unet(plan, 1, 2, seed=3, deep_supervision=True).eval()
    other = stock(plan, 1, 2, deep_supervision=True).eval()
    other.load_state_dict(network.state_dict())
    found, image = network(images()), images()
    each = [other(image[:, :, z]) for z in range(DEPTH)]
    assert len(found) == len(each[0]) > 1
    for level, output in enumerate(found):
        expected = torch.stack([one[level] for one in each], dim=2)
        torch.testing.assert_close(output, expected)
        assert output.shape[-1] == 32 // 2**level


@torch.no_grad()
def test_a_copy_uses_its_own_weights(plan: StockPlan) -> None:
    network = build_unet(plan, 1, 2, seed=1).eval()
    other = copy.deepcopy(network)
    before = network(images())
    other.decoder.seg_layers[-1].weight.zero_()
    other.decoder.seg_layers[-1].bias.fill_(3.0)
    assert torch.equal(network(images()), before)
    assert torch.equal(other(images()), torch.full_like(before, 3.0))


def test_every_weight_learns(plan: StockPlan) -> None:
    network = build_unet(plan, 1, 2, seed=1)
    network(images()).square().sum().backward()
    lacking = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not lacking
