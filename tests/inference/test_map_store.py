"""Stored maps are those of the networks, computed once, and never those of other weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from screener_nnu.conditions import build_condition
from screener_nnu.inference.map_store import MapStore
from screener_nnu.plans import Plan
from screener_nnu.scoring.teacher import FeatureExtractor

CPU = torch.device("cpu")


@pytest.fixture
def plan(made_world: Any) -> Plan:
    return made_world.plan("inference.teacher_tile=[12, 16, 16]")


def network(inputs: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Conv3d(inputs, 3, 1)


def store(folder: Path, plan: Plan, seed: int = 0, kind: str = "sincos") -> MapStore:
    features = FeatureExtractor(network(1, seed), build_condition(kind), (2, 2, 2))
    return MapStore(folder, features, plan, CPU)


def image(kind: str) -> torch.Tensor:
    assert kind == "equalised"
    return torch.rand((20, 26, 30), generator=torch.Generator().manual_seed(5))


def never(_: str) -> torch.Tensor:
    raise AssertionError("the image must not be made again")


def test_maps_of_a_voxelwise_network_are_those_of_the_whole_image(
    tmp_path: Path, plan: Plan
) -> None:
    """Tiles overlap, and each gives the condition its own place."""
    y, c = store(tmp_path, plan).maps("case", image)
    assert c is not None and y.shape == (1, 3, 10, 13, 15) and c.shape == (1, 24, 10, 13, 15)
    with torch.no_grad():
        expected = nn.functional.avg_pool3d(network(1)(image("equalised")[None, None]), 2)
    np.testing.assert_allclose(y.numpy(), expected.numpy(), atol=1e-6)
    place = torch.zeros(1, 3), torch.tensor([[20, 26, 30]])
    place_maps = build_condition("sincos")(image("equalised")[None, None], *place)
    assert place_maps is not None
    np.testing.assert_allclose(c.numpy(), nn.functional.avg_pool3d(place_maps, 2), atol=1e-5)


def test_the_network_runs_once_and_other_densities_share_it(tmp_path: Path, plan: Plan) -> None:
    y, c = store(tmp_path, plan).maps("case", image)
    again, c_again = store(tmp_path, plan).maps("case", never)
    assert c is not None and c_again is not None
    assert torch.equal(y, again) and torch.equal(c, c_again)
    # Another condition shares the descriptor, and has no map of its own here.
    alone, none = store(tmp_path, plan, kind="none").maps("case", never)
    assert torch.equal(alone, y) and none is None


def test_other_weights_and_tiles_have_maps_of_their_own(
    tmp_path: Path, plan: Plan, made_world: Any
) -> None:
    y, _ = store(tmp_path, plan).maps("case", image)
    other, _ = store(tmp_path, plan, seed=1).maps("case", image)
    assert not torch.allclose(y, other)
    with pytest.raises(AssertionError, match="made again"):
        store(tmp_path, made_world.plan()).maps("case", never)


def test_a_damaged_file_is_made_anew(tmp_path: Path, plan: Plan) -> None:
    y = store(tmp_path, plan).maps("case", image)[0].clone()
    files = list(tmp_path.glob("*/case.npy"))
    assert len(files) == 2
    for file in files:
        file.write_bytes(file.read_bytes()[:100])
    again, _ = store(tmp_path, plan).maps("case", image)
    assert torch.equal(y, again)
    assert torch.equal(store(tmp_path, plan).maps("case", never)[0], y)
