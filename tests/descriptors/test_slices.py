"""Slices and their colours, as two-dimensional networks are given them."""

from __future__ import annotations

import pytest
import torch

from screener_nnu.descriptors.slices import pooled_slices

torch.set_num_threads(1)
SHAPE = (4, 8, 12)


def volume(colours: int) -> torch.Tensor:
    return torch.rand(colours, *SHAPE, generator=torch.Generator().manual_seed(0))


def seen(image: torch.Tensor, colours: int) -> torch.Tensor:
    """What the network is given, (colours, D, H, W): its only map is its input."""
    found = pooled_slices(image, lambda s: [s], [(1, 1)], SHAPE, (1, 1, 1), 3, colours)
    assert found.shape[0] == 1
    return found[0]


def test_grey_slices_come_with_their_neighbours() -> None:
    image = volume(1)[0]
    before, after = image[[0, 0, 1, 2]], image[[1, 2, 3, 3]]
    torch.testing.assert_close(seen(image[None], 3), torch.stack([before, image, after]))
    torch.testing.assert_close(seen(image[None], 1), image[None])


def test_colours_are_the_networks_own() -> None:
    image = volume(3)
    torch.testing.assert_close(seen(image, 3), image)
    torch.testing.assert_close(seen(image, 1), image.mean(0, keepdim=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_one_slice_is_its_own_neighbour(channels: int) -> None:
    image = torch.rand(channels, 1, 8, 12, generator=torch.Generator().manual_seed(1))
    found = pooled_slices(image, lambda s: [s], [(1, 1)], (1, 8, 12), (1, 2, 4), 8, 3)
    pooled = torch.nn.functional.avg_pool2d(image[:, 0].expand(3, -1, -1), (2, 4))
    torch.testing.assert_close(found[0, :, 0], pooled)
