"""Shares of boxes in a body against sums over slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.sampling.body_shares import BodyShares


@pytest.mark.parametrize("extent", [(1, 9, 14), (7, 6, 10)])
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32])
def test_share_is_the_mean_of_the_box(extent: tuple[int, int, int], kind: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    bodies = rng.random((4, *extent)) < 0.4
    size = rng.integers(1, np.array(extent) + 1, (3, 50, 3))
    start = rng.integers(0, np.array(extent) - size + 1)
    images = np.array([2, 0, 3])
    shares = BodyShares(torch.from_numpy(bodies).to(kind))
    found = shares.of(*(torch.from_numpy(v) for v in (images, start, size)))
    for row in range(3):
        for box in range(50):
            first, last = start[row, box], start[row, box] + size[row, box]
            part = bodies[images[row]][tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
            assert float(found[row, box]) == pytest.approx(part.mean(), abs=1e-6)


def test_without_bodies_all_is_body() -> None:
    start = torch.zeros(2, 5, 3, dtype=torch.long)
    assert (BodyShares(None).of(torch.arange(2), start, start + 1) == 1).all()
