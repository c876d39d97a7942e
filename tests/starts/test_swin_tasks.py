"""Turns, cut-outs and the contrast of two views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.starts.base import build_start
from screener_nnu.starts.swin_tasks import boxes, turned
from tests.baselines.made_plans import PICTURE, VOLUME
from tests.starts.made_starts import batch, losses, start_plan


def test_labels_are_the_turns_of_the_images() -> None:
    images = torch.rand(8, 2, 3, 5, 5)
    turns = torch.arange(8) % 4
    found = turned(images, turns)
    for image, k, made in zip(images, turns, found, strict=True):
        expected = np.rot90(image.numpy(), int(k), axes=(-2, -1))
        np.testing.assert_array_equal(made.numpy(), expected)


@pytest.mark.parametrize("shape", [(32, 32, 32), (1, 64, 64)])
def test_boxes_cover_up_to_the_share(shape: tuple[int, int, int]) -> None:
    images = torch.zeros(200, 1, *shape)
    masks = boxes(images, 0.3, (0.05, 0.25), torch.Generator().manual_seed(0))
    shares = masks.float().mean((1, 2, 3, 4))
    # The last box may reach beyond, and boxes overlap.
    assert shares.max() < 0.3 + 0.25 ** (2 if shape[0] == 1 else 3)
    assert shares.min() > 0 and 0.08 < shares.mean() < 0.15
    corners = masks[:, 0, 0, 0, 0] | masks[:, 0, -1, -1, -1]
    assert corners.any()
    assert not torch.equal(masks[0], masks[1])


def test_no_boxes_where_none_are_wanted() -> None:
    drawn = torch.Generator().manual_seed(0)
    assert not boxes(torch.zeros(3, 1, 8, 8, 8), 0.0, (0.05, 0.25), drawn).any()


@pytest.mark.parametrize("kind", [VOLUME, PICTURE])
def test_the_objectives_are_those_of_numpy(kind: str) -> None:
    plan = start_plan(kind, "swin_tasks")
    method = build_start(plan)
    seen: dict[str, torch.Tensor] = {}
    for name in ("turn", "embed"):
        getattr(method, name).register_forward_hook(
            lambda _, given, made, name=name: seen.update({name: made, f"{name}_in": given[0]})
        )
    method.network.encoder.register_forward_hook(
        lambda _, given, made: seen.update(spoilt=given[0], deepest=made[-1])
    )
    method.network.decoder.register_forward_hook(lambda _, __, made: seen.update(restored=made))
    with torch.no_grad():
        found = losses(method, plan)
    drawn = torch.Generator().manual_seed(0)
    images = batch(plan)[0]
    square = images if kind == VOLUME else images[..., 16:80]
    turns = torch.randint(4, (4,), generator=drawn)
    views = torch.stack([torch.rot90(square[n % 2], int(k), (-2, -1)) for n, k in enumerate(turns)])
    flat = {k: v.view(4, *v.shape[1:]).numpy() for k, v in seen.items()}
    spoilt, restored = (flat[k].reshape(views.shape) for k in ("spoilt", "restored"))
    changed = spoilt != views.numpy()
    assert 0 < changed.mean() < 0.6
    # What is neither the view nor noise are voxels of the other image.
    others = views[[1, 0, 3, 2]].numpy()
    assert ((spoilt == others) & changed).any() and ((spoilt != others) & changed).any()
    assert float(found["restoring"]) == pytest.approx(
        np.abs(restored - views.numpy()).mean(), rel=1e-5
    )
    pooled = flat["deepest"].reshape(4, flat["deepest"].shape[1], -1).mean(2)
    np.testing.assert_allclose(flat["turn_in"], pooled, atol=1e-5)
    logits = flat["turn"].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -np.log(shares[np.arange(4), turns.numpy()]).mean()
    assert float(found["turns"]) == pytest.approx(entropy, rel=1e-5)
    unit = flat["embed"].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    exponentials = np.exp(unit @ unit.T / 0.5)
    np.fill_diagonal(exponentials, 0)
    partner = [2, 3, 0, 1]
    contrast = -np.log(exponentials[np.arange(4), partner] / exponentials.sum(1)).mean()
    assert float(found["contrast"]) == pytest.approx(contrast, rel=1e-4)
