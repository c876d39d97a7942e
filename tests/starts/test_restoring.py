"""Starts that restore an image: hidden blocks, noise, detail and channels, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from screener_nnu.starts.base import build_start
from screener_nnu.starts.disruptive_autoencoder import kept_channels
from screener_nnu.starts.masked_autoencoder import hidden_error
from tests.baselines.made_plans import PICTURE, VOLUME
from tests.starts.made_starts import batch, losses, start_plan

BOTH = pytest.mark.parametrize("kind", [VOLUME, PICTURE])


def seen_by(method: Any, plan: Any) -> tuple[np.ndarray, np.ndarray, dict[str, torch.Tensor]]:
    """What the network of a method is given and gives, and the losses."""
    kept: list[torch.Tensor] = []
    hook = method.network.register_forward_hook(lambda _, given, made: kept.extend((*given, made)))
    with torch.no_grad():
        found = losses(method, plan)
    hook.remove()
    return kept[0].numpy(), kept[1].numpy(), found


@BOTH
def test_only_hidden_voxels_of_the_body_count(kind: str) -> None:
    plan = start_plan(kind, "masked_autoencoder")
    method = build_start(plan)
    given, made, found = seen_by(method, plan)
    images, bodies = (values.numpy() for values in batch(plan))
    hidden = (given == 0) & (images != 0)
    # Blocks of an eighth, or of four voxels; three quarters of them.
    edges = (4, 4, 4) if kind == VOLUME else (1, 8, 12)
    for number in range(2):
        blocks = hidden[number, 0].reshape(
            *(v for n, e in zip(hidden.shape[2:], edges, strict=True) for v in (n // e, e))
        )
        assert (blocks.all((1, 3, 5)) == blocks.any((1, 3, 5))).all()
        assert blocks.all((1, 3, 5)).mean() == 0.75
    assert np.array_equal(given[~hidden], images[~hidden])
    counted = hidden & bodies
    expected = ((made - images) ** 2)[counted].mean()
    assert float(found["l2"]) == pytest.approx(expected, rel=1e-5)


def test_nothing_is_lost_where_hidden_voxels_are_right() -> None:
    images = torch.rand(2, 3, 4, 5, 6)
    hidden = torch.rand(2, 1, 4, 5, 6) < 0.5
    wrong = torch.where(hidden, images, torch.full_like(images, 9.0))
    assert float(hidden_error(wrong, images, hidden)) == 0
    assert float(hidden_error(wrong, images, ~hidden)) > 1
    assert float(hidden_error(wrong, images, torch.zeros_like(hidden))) == 0


@BOTH
def test_coarse_noise_lies_in_the_body_alone(kind: str) -> None:
    plan = start_plan(kind, "denoising")
    given, made, found = seen_by(build_start(plan), plan)
    images, bodies = (values.numpy() for values in batch(plan))
    noise = given - images
    assert not noise[~bodies].any()
    low, high, _, std = plan.intensities_of(0)
    # Sixteen cells an axis are a cell a voxel of the volume; between those of a picture noise is
    # interpolated, which halves its spread.
    strength = noise[bodies].std() / ((high - low) / std)
    assert strength == pytest.approx(0.2 if kind == VOLUME else 0.13, rel=0.1)
    assert float(found["l1"]) == pytest.approx(np.abs(made - images)[bodies].mean(), rel=1e-5)


def test_noise_is_as_coarse_as_its_cells() -> None:
    plan = start_plan(VOLUME, "denoising", ["start.options.cells=4"])
    images = torch.zeros(1, 1, 16, 16, 16)
    method = build_start(plan)
    kept: list[torch.Tensor] = []
    method.network.register_forward_hook(lambda _, given, __: kept.extend(given))
    drawn = torch.Generator().manual_seed(5)
    with torch.no_grad():
        method(images, torch.ones_like(images) > 0, drawn, 0, 1)
    cells = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(5))
    expected = 0.2 * 9 * F.interpolate(cells, (16, 16, 16), mode="trilinear")
    torch.testing.assert_close(kept[0], expected)


@BOTH
def test_disrupted_images_lose_detail_and_channels(kind: str) -> None:
    plan = start_plan(kind, "disruptive_autoencoder", ["start.options.noise=0"])
    method = build_start(plan)
    stages: list[torch.Tensor] = []
    second = method.network.encoder.stages[1]
    second.register_forward_hook(lambda _, given, __: stages.extend(given))
    given, made, found = seen_by(method, plan)
    images = batch(plan)[0]
    assert method.coarse == ((4, 4, 4) if kind == VOLUME else (1, 16, 24))
    coarse = F.interpolate(images, method.coarse, mode="trilinear")
    expected = F.interpolate(coarse, images.shape[2:], mode="trilinear")
    np.testing.assert_allclose(given, expected.numpy(), atol=1e-5)
    lost = (stages[0] == 0).flatten(2).all(2).sum(1)
    # Four channels, of which 60 % are two.
    assert lost.tolist() == [2, 2]
    assert float(found["l1"]) == pytest.approx(np.abs(made - images.numpy()).mean(), rel=1e-5)


def test_the_hook_lives_for_one_call() -> None:
    plan = start_plan(VOLUME, "disruptive_autoencoder")
    method = build_start(plan)
    images = batch(plan)[0]
    with torch.no_grad():
        before = method.network(images)
        losses(method, plan)
        assert torch.equal(before, method.network(images))


def test_noise_of_disrupted_images_is_that_of_the_window() -> None:
    plan = start_plan(VOLUME, "disruptive_autoencoder", ["start.options.factor=1"])
    given, _, _ = seen_by(build_start(plan), plan)
    noise = given - batch(plan)[0].numpy()
    assert noise.std() == pytest.approx(0.32 * 9, rel=0.03)


@pytest.mark.parametrize("channels", [4, 16, 32])
def test_sixty_percent_of_the_channels_are_dropped(channels: int) -> None:
    kept = kept_channels(500, channels, 0.6, torch.Generator().manual_seed(0))
    dropped = (kept == 0).sum(1)
    assert (dropped == dropped[0]).all() and abs(int(dropped[0]) - 0.6 * channels) <= 1
    # Each channel as often as others.
    share = float(dropped[0]) / channels
    assert ((kept == 0).float().mean(0) - share).abs().max() < 4 * (0.25 / 500) ** 0.5
    assert len({tuple(row) for row in kept.tolist()}) > 1
