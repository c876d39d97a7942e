"""Patches on a grid against plain slices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.sampling.body_shares import BodyShares
from screener_nnu.sampling.patches import boxes_of, cut_patches, draw_patches, patch_starts

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("size", "patch"),
    [((1, 64, 64), (1, 32, 32)), ((1, 33, 100), (1, 32, 32)), ((20, 16, 41), (16, 16, 16))],
)
def test_patches_cover_an_image_and_overlap_by_half(
    size: tuple[int, int, int], patch: tuple[int, int, int]
) -> None:
    starts = patch_starts(size, patch)
    covered = np.zeros(size, dtype=int)
    for place in starts:
        covered[tuple(slice(a, a + n) for a, n in zip(place, patch, strict=True))] += 1
    assert covered.min() >= 1 and covered.sum() == len(starts) * np.prod(patch)
    for axis, (n, p) in enumerate(zip(size, patch, strict=True)):
        along = sorted({place[axis] for place in starts})
        assert along[0] == 0 and along[-1] == n - p
        assert all(b - a <= max(1, p // 2) for a, b in zip(along, along[1:], strict=False))


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_are_slices(channels: int) -> None:
    images = torch.rand(3, channels, 6, 9, 8)
    index = torch.tensor([2, 0, 2, 1])
    starts = torch.tensor([[0, 0, 0], [2, 5, 3], [1, 2, 4], [2, 0, 1]])
    found = cut_patches(images, index, starts, (4, 4, 4))
    for patch, i, (z, y, x) in zip(found, index, starts.tolist(), strict=True):
        assert torch.equal(patch, images[i, :, z : z + 4, y : y + 4, x : x + 4])


def test_patches_in_the_body_come_first() -> None:
    bodies = torch.zeros(2, 1, 1, 32, 32)
    bodies[0, ..., :16, :] = 1
    bodies[1, ..., 8:24, 8:24] = 1
    patch = (1, 8, 8)
    starts = torch.tensor(patch_starts((1, 32, 32), patch))
    images = torch.arange(len(bodies))
    shares = BodyShares(bodies[:, 0]).of(images, *boxes_of(starts, patch, len(bodies)))
    for image, row in zip(bodies, shares, strict=True):
        for (z, y, x), share in zip(starts.tolist(), row, strict=True):
            assert float(image[0, z, y : y + 8, x : x + 8].mean()) == pytest.approx(float(share))
    inside = (shares >= 0.5).sum(1).tolist()
    seen = set()
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        index, chosen = draw_patches(bodies, starts, patch, 6, generator)
        assert index.tolist() == [0] * 6 + [1] * 6
        assert len({(i, *s) for i, s in zip(index.tolist(), chosen.tolist(), strict=True)}) == 12
        for i, place in zip(index.tolist(), chosen.tolist(), strict=True):
            assert shares[i, starts.tolist().index(place)] >= 0.5
            seen.add((i, *place))
    assert len(seen) == sum(inside)
    index, chosen = draw_patches(bodies, starts, patch, 1000, generator)
    assert len(index) == 2 * len(starts)
    again = draw_patches(bodies, starts, patch, 6, torch.Generator().manual_seed(29))
    first = draw_patches(bodies, starts, patch, 6, torch.Generator().manual_seed(29))
    assert all(torch.equal(a, b) for a, b in zip(again, first, strict=True))
