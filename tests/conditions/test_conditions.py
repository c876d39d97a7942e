"""Conditions against NumPy: those without learning, and what is made of trained networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from screener_nnu.conditions import CONDITIONS, TRAINED_BY, build_condition
from screener_nnu.conditions.learned import masked_input
from screener_nnu.errors import ScreenerError
from screener_nnu.stages import STAGES

torch.set_num_threads(1)
EXTENT = (10, 14, 18)


def sincos(shape: tuple[int, ...], start: tuple[int, ...], extent: tuple[int, ...]) -> np.ndarray:
    """24 channels: axis by axis, frequency by frequency, sine then cosine."""
    channels = []
    for axis in range(3):
        unit = (np.arange(shape[axis]) + start[axis] + 0.5) / extent[axis]
        for frequency in (0.5, 1.0, 2.0, 4.0):
            for function in (np.sin, np.cos):
                wave = function(2 * np.pi * frequency * unit)
                view = [1, 1, 1]
                view[axis] = -1
                channels.append(np.broadcast_to(wave.reshape(view), shape))
    return np.stack(channels)


def test_sincos_equals_numpy_for_each_place_of_a_batch() -> None:
    starts, extents = [(0, 0, 0), (3, 5, 2)], [(10, 14, 18), (40, 30, 20)]
    image = torch.rand(2, 1, 4, 6, 5)
    condition = build_condition("sincos")
    maps = condition(image, torch.tensor(starts), torch.tensor(extents))
    assert maps.shape == (2, 24, 4, 6, 5) and condition.channels == 24
    assert not condition.trained
    for result, start, extent in zip(maps.numpy(), starts, extents, strict=True):
        np.testing.assert_allclose(result, sincos((4, 6, 5), start, extent), atol=1e-5)


@pytest.mark.parametrize("start", [(0, 0, 0), (2, 7, 9), (6, 10, 13)])
def test_sincos_of_a_tile_is_that_part_of_the_volume(start: tuple[int, int, int]) -> None:
    extent, condition = torch.tensor([EXTENT]), build_condition("sincos")
    whole = condition(torch.zeros(1, 1, *EXTENT), torch.zeros(1, 3, dtype=torch.long), extent)
    tile = condition(torch.zeros(1, 1, 4, 4, 5), torch.tensor([start]), extent)
    part = (
        slice(None),
        slice(None),
        *(slice(a, a + n) for a, n in zip(start, (4, 4, 5), strict=True)),
    )
    torch.testing.assert_close(tile, whole[part], rtol=0, atol=1e-6)


def test_sincos_tells_all_voxels_apart() -> None:
    condition = build_condition("sincos")
    maps = condition(
        torch.zeros(1, 1, *EXTENT), torch.zeros(1, 3, dtype=torch.long), torch.tensor([EXTENT])
    )
    vectors = maps[0].flatten(1).T
    nearest = torch.cdist(vectors, vectors).fill_diagonal_(9.0).min()
    assert float(nearest) > 0.1


def test_none_gives_nothing() -> None:
    condition = build_condition("none")
    assert condition.channels == 0 and not condition.trained
    place = torch.zeros(1, 3)
    assert condition(torch.zeros(1, 1, 2, 2, 2), place, place) is None


def test_masked_input_is_image_times_mask_and_mask() -> None:
    image, mask = torch.rand(2, 1, 3, 4, 5) + 0.1, (torch.rand(2, 1, 3, 4, 5) > 0.5).float()
    joined = masked_input(image, mask)
    assert joined.shape == (2, 2, 3, 4, 5)
    np.testing.assert_allclose(joined[:, 0].numpy(), (image * mask)[:, 0].numpy())
    np.testing.assert_allclose(joined[:, 1].numpy(), mask[:, 0].numpy())


def test_masking_invariant_sees_the_whole_image() -> None:
    """Image times one, and a mask of ones: nothing is hidden, wherever the image lies."""
    network = nn.Conv3d(2, 3, 1)
    condition = build_condition("masking_invariant", network=network, channels=3)
    assert condition.trained and condition.channels == 3
    image = torch.rand(2, 1, 3, 4, 5)
    weight, bias = network.weight.detach().view(3, 2).numpy(), network.bias.detach().numpy()
    expected = np.einsum("k,bdhw->bkdhw", weight[:, 0], image[:, 0].numpy())
    expected += (weight[:, 1] + bias)[:, None, None, None]
    for place in (torch.zeros(2, 3), torch.full((2, 3), 7)):
        result = condition(image, place, torch.full((2, 3), 20))
        np.testing.assert_allclose(result.detach().numpy(), expected, atol=1e-5)


def test_ape_encodes_the_position_of_the_network() -> None:
    """Sigmoid of a quarter of the outputs, each coordinate encoded as `sincos` encodes a place."""
    network = nn.Conv3d(2, 3, 1)
    condition = build_condition("ape", network=network)
    assert condition.trained and condition.channels == 24
    image = torch.rand(2, 1, 3, 4, 5)
    weight, bias = network.weight.detach().view(3, 2).numpy(), network.bias.detach().numpy()
    outputs = np.einsum("k,bdhw->bkdhw", weight[:, 0], image[:, 0].numpy())
    outputs += (weight[:, 1] + bias)[:, None, None, None]
    unit = 1 / (1 + np.exp(-outputs / 4))
    waves = [
        function(2 * np.pi * frequency * unit[:, axis])
        for axis in range(3)
        for frequency in (0.5, 1.0, 2.0, 4.0)
        for function in (np.sin, np.cos)
    ]
    for place in (torch.zeros(2, 3), torch.full((2, 3), 7)):
        maps = condition(image, place, torch.full((2, 3), 20))
        np.testing.assert_allclose(maps.detach().numpy(), np.stack(waves, axis=1), atol=1e-5)


def test_ape_at_a_place_is_sincos_of_that_place() -> None:
    """One encoding for both: a network that knew the place would give the same 24 channels."""
    start, extent = torch.tensor([[2, 3, 1]]), torch.tensor([EXTENT])
    image = torch.zeros(1, 1, 4, 6, 5)

    class Place(nn.Module):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            index = torch.stack(torch.meshgrid(*map(torch.arange, (4, 6, 5)), indexing="ij"))
            unit = (index + start.view(3, 1, 1, 1) + 0.5) / extent.view(3, 1, 1, 1)
            return 4 * torch.logit(unit)[None]

    found = build_condition("ape", network=Place())(image, start, extent)
    torch.testing.assert_close(found, build_condition("sincos")(image, start, extent))


def test_conditions_know_the_stage_that_trains_them() -> None:
    assert set(TRAINED_BY) == {kind for kind, made in CONDITIONS.items() if made.trained}  # type: ignore[attr-defined]
    assert set(TRAINED_BY.values()) <= set(STAGES)


def test_unknown_condition_lists_the_known_ones() -> None:
    with pytest.raises(ScreenerError, match="no condition 'nonsense'") as error:
        build_condition("nonsense")
    for name in CONDITIONS:
        assert name in str(error.value)
