"""Moments of bins against NumPy, whatever parts the rows come in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from screener_nnu.densities.bin_moments import DIAGONAL, FULL, SHARED, BinMoments
from screener_nnu.errors import ScreenerError

KINDS = (FULL, SHARED, DIAGONAL)


def sample(count: int = 90, offset: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows with a mean of their own in each of six bins; bin 2 has none, and bin 4 one."""
    random = np.random.default_rng(count)
    bins = random.choice([0, 1, 3, 5], size=count)
    bins[7] = 4
    rows = random.normal(size=(count, 3)) @ random.normal(size=(3, 3)) + 5 * bins[:, None]
    # Whole multiples of 1/64, which float32 holds with an offset as well.
    return torch.tensor(np.rint(rows * 64) / 64 + offset).float(), torch.tensor(bins)


def moments_of(kind: str, parts: int, offset: float = 0.0) -> BinMoments:
    rows, bins = sample(offset=offset)
    moments = BinMoments(6, 3, kind)
    for part in torch.arange(len(rows)).tensor_split(parts):
        moments.add(rows[part], bins[part])
    return moments


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [1, 2, 7, 90])
@pytest.mark.parametrize("offset", [0.0, 2.0**15])
def test_parts_give_what_all_rows_give(kind: str, parts: int, offset: float) -> None:
    """One part of each bin's rows is the explicit two passes."""
    moments = moments_of(kind, parts, offset)
    rows, bins = (values.numpy() for values in sample(offset=offset))
    rows = rows.astype(np.float64)
    filled = sorted(set(bins.tolist()))
    assert moments.filled == filled == [0, 1, 3, 4, 5] and moments.total == 90
    mean, pooled = (value.numpy() for value in moments.pooled())
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    whole = np.cov(rows.T)
    np.testing.assert_allclose(pooled, whole.diagonal() if kind == DIAGONAL else whole, rtol=1e-9)
    within = np.zeros((3, 3))
    for number in filled:
        own = rows[bins == number]
        np.testing.assert_allclose(moments.means[number], own.mean(0), rtol=1e-12)
        covariance = np.cov(own.T) if len(own) > 1 else np.zeros((3, 3))
        within += covariance * (len(own) - 1)
        if kind == FULL:
            found = moments.covariances([number])[0]
            np.testing.assert_allclose(found, covariance, rtol=1e-9, atol=1e-12)
        elif kind == DIAGONAL:
            found = moments.covariances([number])[0]
            np.testing.assert_allclose(found, covariance.diagonal(), rtol=1e-9, atol=1e-12)
    if kind == SHARED:
        np.testing.assert_allclose(moments.shared(), within / (90 - 5), rtol=1e-9)


def test_several_bins_at_a_time() -> None:
    moments = moments_of(FULL, 3)
    both = moments.covariances([5, 0])
    assert torch.equal(both[0], moments.covariances([5])[0])
    assert torch.equal(both[1], moments.covariances([0])[0]) and not torch.equal(*both)


def test_shared_covariances_are_one_matrix() -> None:
    sizes = {kind: tuple(BinMoments(6, 3, kind).scatter.shape) for kind in KINDS}
    assert sizes == {FULL: (6, 3, 3), SHARED: (1, 3, 3), DIAGONAL: (6, 3)}
    moments = BinMoments(3, 2, SHARED)
    moments.add(torch.randn(3, 2), torch.arange(3))
    with pytest.raises(ScreenerError, match="no bin has two rows"):
        moments.shared()
