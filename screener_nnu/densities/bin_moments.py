"""Moments of the rows of many bins, of rows that come part by part."""

from __future__ import annotations

import torch
from torch import Tensor

from screener_nnu.densities.moments import mean_and_scatter
from screener_nnu.errors import ScreenerError

FULL, SHARED, DIAGONAL = "full", "shared", "diagonal"


class BinMoments:
    """Count, mean and covariance of the rows of each bin, in float64 on the CPU.

    Parts are merged by the pairwise update of Chan, Golub and LeVeque (1983), so that nothing
    cancels where a mean is large, and all parts together give what one part of all rows would.
    Bins have 8 d^2 bytes each, 8 d with `diagonal`, and one matrix in common with `shared`.

    Args:
        number: of bins, K.
        dim: channels d of a row.
        covariance: `full`; `shared`, that about the means of the bins; or `diagonal`.

    Example:
        >>> moments = BinMoments(2, 1, FULL)
        >>> moments.add(torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([0, 0, 1]))
        >>> moments.add(torch.tensor([[5.0]]), torch.tensor([0]))
        >>> moments.means.flatten().tolist(), moments.covariances([0]).flatten().tolist()
        ([3.0, 8.0], [4.0])
    """

    def __init__(self, number: int, dim: int, covariance: str) -> None:
        """Starts without rows."""
        self.covariance = covariance
        self.counts = torch.zeros(number, dtype=torch.long)
        self.means = torch.zeros(number, dim, dtype=torch.float64)
        square = (dim,) if covariance == DIAGONAL else (dim, dim)
        matrices = 1 if covariance == SHARED else number
        self.scatter = torch.zeros(matrices, *square, dtype=torch.float64)

    def add(self, rows: Tensor, bins: Tensor) -> None:
        """Adds rows (N, d), each to its bin (N,), on any device."""
        rows, bins = rows.cpu(), bins.cpu()
        sizes = torch.bincount(bins, minlength=len(self.counts))
        groups = rows[bins.argsort(stable=True)].split(sizes.tolist())
        for number in sizes.nonzero().flatten().tolist():
            self._add_to(number, groups[number])

    def _add_to(self, number: int, group: Tensor) -> None:
        mean, scatter = mean_and_scatter(group)
        before, more = int(self.counts[number]), len(group)
        gap = mean - self.means[number]
        if self.covariance == DIAGONAL:
            scatter = scatter.diagonal()
        weight = before * more / (before + more)
        self.scatter[number % len(self.scatter)] += scatter + weight * self._product(gap)
        self.means[number] += gap * (more / (before + more))
        self.counts[number] += more

    def _product(self, gaps: Tensor) -> Tensor:
        """Sum over rows (..., d) of their squares, or of their outer products."""
        gaps = gaps.reshape(-1, gaps.shape[-1])
        return gaps.square().sum(dim=0) if self.covariance == DIAGONAL else gaps.T @ gaps

    @property
    def total(self) -> int:
        """Rows of all bins."""
        return int(self.counts.sum())

    @property
    def filled(self) -> list[int]:
        """Bins that have rows."""
        return self.counts.nonzero().flatten().tolist()

    def pooled(self) -> tuple[Tensor, Tensor]:
        """Mean (d,) and covariance, over N - 1, of all N rows, 2 at least; (d, d), or (d,)."""
        mean = (self.means * self.counts[:, None]).sum(dim=0) / self.total
        gaps = (self.means - mean) * self.counts[:, None].double().sqrt()
        scatter = self.scatter.sum(dim=0) + self._product(gaps)
        return mean, scatter / (self.total - 1)

    def covariances(self, bins: list[int]) -> Tensor:
        """Those of some bins, over n - 1, (M, d, d) or (M, d); 0 of a bin with one row."""
        freedom = (self.counts[bins] - 1).clamp(min=1)
        scatter = self.scatter[bins]
        return scatter / freedom.view(-1, *[1] * (scatter.ndim - 1))

    def shared(self) -> Tensor:
        """Covariance of all rows about the means of their bins, (d, d), with `shared`.

        Raises:
            ScreenerError: no bin has two rows.
        """
        freedom = self.total - len(self.filled)
        if freedom < 1:
            raise ScreenerError(
                "no bin has two rows, so that bins have no covariance to share: choose fewer bins "
                "(density.options.bins), or give more scans"
            )
        return self.scatter[0] / freedom
