"""Block masks: how much is hidden, how often, in which blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.plans import MaskSettings
from screener_nnu.sampling.masks import block_masks

torch.set_num_threads(1)
CROP = (16, 24, 20)


def draw(count: int, settings: MaskSettings, seed: int = 0) -> torch.Tensor:
    return block_masks(count, CROP, settings, torch.Generator().manual_seed(seed))


def blocks(masks: torch.Tensor, edge: int) -> np.ndarray:
    """(B, edge^3, voxels of a block)."""
    array = masks[:, 0].numpy()
    size = [n // edge for n in CROP]
    split = array.reshape(-1, edge, size[0], edge, size[1], edge, size[2])
    return split.transpose(0, 1, 3, 5, 2, 4, 6).reshape(len(array), edge**3, -1)


@pytest.mark.parametrize(("fraction", "edge"), [(0.6, 4), (0.25, 4), (0.5, 2), (0.0, 4), (1.0, 2)])
def test_exactly_the_fraction_of_blocks_is_hidden(fraction: float, edge: int) -> None:
    masks = draw(50, MaskSettings(1.0, fraction, edge))
    assert masks.shape == (50, 1, *CROP)
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    hidden = 1 - blocks(masks, edge).mean(-1)
    assert (hidden.sum(1) == round(fraction * edge**3)).all()


def test_a_block_is_hidden_or_seen_as_a_whole() -> None:
    """Block = crop / 4 per axis."""
    content = blocks(draw(50, MaskSettings(1.0, 0.6, 4)), 4)
    assert (content.min(-1) == content.max(-1)).all()
    # Neighbouring blocks must differ somewhere, or the blocks were larger than that.
    grid = content[..., 0].reshape(-1, 4, 4, 4)
    for axis in (1, 2, 3):
        assert (np.diff(grid, axis=axis) != 0).any(0).all()


@pytest.mark.parametrize("probability", [0.0, 0.9, 1.0])
def test_probability_of_hiding(probability: float) -> None:
    count = 3000
    masks = draw(count, MaskSettings(probability, 0.6, 4))
    masked = float((masks.amin(dim=(1, 2, 3, 4)) == 0).float().mean())
    assert abs(masked - probability) <= 4 * np.sqrt(probability * (1 - probability) / count)


def test_blocks_are_equally_likely_and_masks_independent() -> None:
    count = 4000
    content = blocks(draw(count, MaskSettings(1.0, 0.6, 4)), 4)[..., 0]
    share = 1 - content.mean(0)
    expected = round(0.6 * 64) / 64
    assert np.abs(share - expected).max() < 5 * np.sqrt(expected * (1 - expected) / count)
    # Two masks in a row agree on a block as often as independent ones do.
    agree = (content[::2] == content[1::2]).mean()
    assert abs(agree - (expected**2 + (1 - expected) ** 2)) < 0.01


def test_the_generator_decides() -> None:
    settings = MaskSettings()
    assert torch.equal(draw(8, settings, 1), draw(8, settings, 1))
    assert not torch.equal(draw(8, settings, 1), draw(8, settings, 2))


@pytest.mark.parametrize("edge", [2, 4])
def test_a_picture_has_one_slice_of_blocks(edge: int) -> None:
    settings = MaskSettings(1.0, 0.6, edge)
    masks = block_masks(60, (1, 24, 20), settings, torch.Generator().manual_seed(0))
    assert masks.shape == (60, 1, 1, 24, 20)
    content = masks[:, 0, 0].numpy().reshape(60, edge, 24 // edge, edge, 20 // edge)
    assert (content.min((2, 4)) == content.max((2, 4))).all()
    assert (edge**2 - content[:, :, 0, :, 0].sum((1, 2)) == round(0.6 * edge**2)).all()
