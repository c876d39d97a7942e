"""Overlaps of crops, their loss and what keeps base crops apart, against NumPy."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from screener_nnu.starts.base import build_start
from screener_nnu.starts.contextual_position import (
    likeness_of_bases,
    overlap_loss,
    overlap_shares,
)
from tests.baselines.made_plans import PICTURE, VOLUME
from tests.starts.made_starts import batch, losses, start_plan


def counted_share(start: np.ndarray, base: np.ndarray, edges: tuple[int, int, int]) -> float:
    """By painting both boxes."""
    canvas = np.zeros((2, 40, 40, 40), dtype=bool)
    for place, first in zip(canvas, (start, base), strict=True):
        z, y, x = first + 10
        place[z : z + edges[0], y : y + edges[1], x : x + edges[2]] = True
    return float(canvas.all(0).sum() / canvas[0].sum())


def test_shares_are_those_of_painted_boxes() -> None:
    generator = np.random.default_rng(0)
    edges = (6, 5, 4)
    bases = np.array([[0, y * 5, x * 4] for y in range(3) for x in range(3)])
    starts = generator.integers(-4, 12, (2, 7, 3))
    found = overlap_shares(torch.from_numpy(starts), torch.from_numpy(bases), edges)
    expected = [[[counted_share(s, b, edges) for b in bases] for s in of] for of in starts]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert (found.sum(-1) <= 1 + 1e-6).all() and (found.sum(-1) < 1).any()


@pytest.mark.parametrize("kind", [VOLUME, PICTURE])
def test_crops_in_the_region_are_covered_by_base_crops(kind: str) -> None:
    method = build_start(start_plan(kind, "contextual_position", ["start.options.crops=300"]))
    starts = method.drawn_starts(2, torch.Generator().manual_seed(0))
    labels = overlap_shares(starts, method.bases, method.edges)
    torch.testing.assert_close(labels.sum(-1), torch.ones(2, 300))
    assert (starts.amax((0, 1)) == method.room).all() and (starts.amin((0, 1)) == 0).all()


def test_the_loss_is_that_of_numpy() -> None:
    generator = np.random.default_rng(1)
    labels = generator.random((2, 3, 9)) * (generator.random((2, 3, 9)) < 0.4)
    similarity = generator.random((2, 3, 9)) * 0.98
    apart = labels == 0
    near = -(labels * np.log(1 - np.abs(labels - similarity))).sum() / labels.sum()
    far = -np.log(1 - similarity[apart]).mean()
    found = overlap_loss(torch.from_numpy(similarity), torch.from_numpy(labels))
    assert float(found) == pytest.approx(near + far, abs=1e-4)
    right = overlap_loss(torch.from_numpy(labels), torch.from_numpy(labels))
    assert float(right) == pytest.approx(0, abs=1e-5)
    worst = overlap_loss(torch.ones(1, 4), torch.zeros(1, 4))
    assert torch.isfinite(worst) and float(worst) > 5


def test_likeness_is_the_mean_of_pairs() -> None:
    vectors = np.random.default_rng(2).normal(size=(2, 4, 5))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    pairs = [max(0, v[i] @ v[j]) for v in vectors for i in range(4) for j in range(4) if i != j]
    found = likeness_of_bases(torch.from_numpy(vectors))
    assert float(found) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_base_crops_learn_from_their_likeness_alone() -> None:
    plan = start_plan(VOLUME, "contextual_position", ["start.options.regulariser=0"])
    method = build_start(plan)
    vectors: list[torch.Tensor] = []

    def keep(_: object, __: object, made: torch.Tensor) -> None:
        made.retain_grad()
        vectors.append(made)

    method.projector.register_forward_hook(keep)
    torch.stack(list(losses(method, plan).values())).sum().backward()
    gradient = vectors[0].grad.unflatten(0, (2, -1))  # type: ignore[union-attr]
    places = len(method.bases)
    assert gradient.shape[1] == places + 2
    assert not gradient[:, :places].any() and gradient[:, places:].any()


def test_base_crops_are_the_parts_of_the_image() -> None:
    plan = start_plan(VOLUME, "contextual_position")
    method = build_start(plan)
    kept: list[torch.Tensor] = []
    method.network.encoder.register_forward_pre_hook(lambda _, given: kept.extend(given))
    with torch.no_grad():
        losses(method, plan)
    images = batch(plan)[0]
    crops = kept[0].unflatten(0, (2, -1))
    assert torch.equal(crops[:, 0], images[:, :, :, :8, :8])
    assert torch.equal(crops[:, 1], images[:, :, :, :8, 8:])
    assert torch.equal(crops[:, 2], images[:, :, :, 8:, :8])


def test_a_smaller_grid_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        small = build_start(start_plan(VOLUME, "contextual_position"))
        assert [r.message for r in caplog.records if "2 x 2 base crops" in r.message]
        caplog.clear()
        wide = ["start.crop_size=[16, 48, 48]"]
        large = build_start(start_plan(VOLUME, "contextual_position", wide))
        assert not caplog.records
    assert len(small.bases) == 4 and small.edges == (16, 8, 8)
    assert len(large.bases) == 9 and large.edges == (16, 16, 16)
