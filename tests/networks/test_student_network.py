"""A student whose head sees all levels of a UNet that stays as it is."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from screener_nnu.networks.student import build_student
from screener_nnu.networks.unet import build_unet
from screener_nnu.planners.architecture import plan_architecture
from screener_nnu.planners.presets import preset_named


def plan_of(spacing: tuple[float, ...], crop: tuple[int, ...]) -> Any:
    architecture = plan_architecture(spacing, crop, preset_named("cpu"))
    arguments = architecture["arch_kwargs"]
    arguments["features_per_stage"] = [4 * 2**i for i in range(arguments["n_stages"])]
    distillation = SimpleNamespace(learns="head", hidden=5)
    settings = SimpleNamespace(distillation=distillation)
    return SimpleNamespace(architecture=architecture, channels=1, settings=settings)


@pytest.mark.parametrize(
    "plan, shape",
    [
        (plan_of((2.0, 2.0, 2.0), (16, 16, 16)), (16, 16, 16)),
        (plan_of((999.0, 2.0, 2.0), (1, 32, 32)), (1, 32, 32)),
    ],
    ids=["volumes", "planes"],
)
def test_head_alone_learns_and_gives_the_same_at_single_voxels(
    plan: Any, shape: tuple[int, ...]
) -> None:
    network: Any = build_student(plan, seed=1)
    unet = build_unet(plan, 1, 1, 1)
    state = network.state_dict()
    for name, value in unet.state_dict().items():
        assert torch.equal(state[name], value)
    assert all(
        parameter.requires_grad == name.startswith("level_head.")
        for name, parameter in network.named_parameters()
    )
    image = torch.randn(2, 1, *shape)
    scores = network(image)
    assert scores.shape == (2, 1, *shape) and scores.std() > 0.01
    voxels = scores[0].numel()
    places = torch.stack([torch.randperm(voxels)[:60] for _ in range(2)])
    found = network(image, places)
    expected = scores.flatten(2).gather(2, places[:, None])
    torch.testing.assert_close(found, expected[..., None, None], atol=1e-5, rtol=1e-4)
    # A copy has weights of its own.
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.level_head.out.bias += 1
    torch.testing.assert_close(other(image), scores + 1)
    # In mixed precision the last layer is exact.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(image).dtype == torch.float32
