"""Mean shift of rows towards dense places, of training rows and of others against their path."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from screener_nnu.densities.density_weights import WeightSettings, density_weights
from screener_nnu.densities.neighbour_search import nearest_rows, row_distances
from screener_nnu.densities.sized_by_data import SizedByData
from screener_nnu.errors import ScreenerError
from screener_nnu.setting_values import Count, Fraction, NotNegative

logger = logging.getLogger(__name__)

#: Fewer rows say nothing about what is typical.
LEAST_ROWS = 10
_FEW_ROWS = 100


@dataclass(frozen=True)
class MeanShiftSettings(WeightSettings):
    """Settings of the shift and of its weights; the defaults are the published ones.

    Attributes:
        k: neighbours of a row, itself included; at most half of the rows are used, for with all of
            them every row moves to one common mean.
        rate: share of the way to the mean of the neighbours that a step goes.
        iterations: steps at most.
        tolerance: the mean move of a step below which it is the last.
        half_trajectory: keep the path of the training rows in float16, half the memory.
    """

    k: Count = 50
    rate: Fraction = 0.33
    iterations: Count = 8
    tolerance: NotNegative = 0.01
    half_trajectory: bool = False

    def neighbours(self, rows: int) -> int:
        """How many neighbours are used among so many rows."""
        return max(min(self.k, rows // 2), 1)


class Shifted(NamedTuple):
    """Rows after a shift.

    Attributes:
        positions: where they end, (n, d).
        displacement: sum of their distances to the local means, over the steps, (n,).
        trajectory: where they are before each step, (steps, n, d).
    """

    positions: Tensor
    displacement: Tensor
    trajectory: Tensor


def local_means(
    queries: Tensor, rows: Tensor, weights: Tensor, k: int, leave_out: Tensor | None = None
) -> Tensor:
    """Weighted mean of the k nearest rows of each query; the query where all these weigh nothing.

    Args:
        queries: (m, d).
        rows: (n, d).
        weights: of the rows, (n,).
        k: at most n, and less than n with `leave_out`.
        leave_out: number of a row that is no neighbour of the query, (m,).

    Returns:
        (m, d).
    """
    if leave_out is None:
        index = nearest_rows(queries, rows, k)
    else:
        index = _nearest_others(queries, rows, k, leave_out)
    # Adds up row by row: no table of all neighbours, and sums do not depend on the other queries.
    total = embedding_bag(index, weights[:, None], mode="sum")
    sums = embedding_bag(index, rows, mode="sum", per_sample_weights=weights[index])
    return torch.where(total > 0, sums / total, queries)


def _nearest_others(queries: Tensor, rows: Tensor, k: int, leave_out: Tensor) -> Tensor:
    index = nearest_rows(queries, rows, k + 1)
    dropped = index == leave_out[:, None]
    elsewhere = ~dropped.any(dim=1)
    dropped[elsewhere, -1] = True
    kept = index[~dropped].view(-1, k)
    kept[elsewhere] = nearest_rows(queries[elsewhere], rows, k)
    return kept


def _step(positions: Tensor, means: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """Positions after a step, and distances to the means before it."""
    return positions + rate * (means - positions), row_distances(means, positions)


@torch.no_grad()
def shift_together(rows: Tensor, weights: Tensor, settings: MeanShiftSettings) -> Shifted:
    """Moves rows, each step towards the weighted means of their neighbours among each other.

    The weights stay; neighbours are found anew in each step.

    References:
        Kar, Lakshmi S, Bej, Improved Anomaly Detection in Medical Images via Mean Shift Density
        Enhancement (https://arxiv.org/abs/2604.19191).

    Args:
        rows: (n, d).
        weights: (n,), not negative.
        settings: of the shift.

    Returns:
        The rows after at most `iterations` steps.
    """
    k = settings.neighbours(len(rows))
    positions, displacement = rows, rows.new_zeros(len(rows))
    trajectory = []
    for _ in range(settings.iterations):
        trajectory.append(positions.half() if settings.half_trajectory else positions)
        means = local_means(positions, positions, weights, k)
        positions, moves = _step(positions, means, settings.rate)
        displacement = displacement + moves
        if moves.mean() < settings.tolerance:
            break
    return Shifted(positions, displacement, torch.stack(trajectory))


class ReferenceShift(SizedByData):
    """Moves queries by training rows alone, so that a query's path does not depend on others.

    At each step the training rows are where they were at that step of their own shift. A training
    row that comes as a query takes its own path, since it is its own neighbour; with `leave_out`
    it is not.

    Args:
        settings: of the shift and the weights.

    Attributes:
        weights: of the training rows, (n,).
        trajectory: their path, (steps, n, d).

    Example:
        >>> rows = torch.linspace(0, 1, 200)[:, None]
        >>> shift = ReferenceShift(MeanShiftSettings(weights="uniform"))
        >>> end = shift.fit(rows).positions
        >>> bool(torch.equal(shift(rows)[0], end))
        True
    """

    weights: Tensor
    trajectory: Tensor

    def __init__(self, settings: MeanShiftSettings) -> None:
        """Starts without rows."""
        super().__init__()
        self.settings = settings
        self.register_buffer("weights", torch.empty(0))
        kept = torch.float16 if settings.half_trajectory else torch.float32
        self.register_buffer("trajectory", torch.empty(0, 0, 0, dtype=kept))

    @property
    def rows(self) -> Tensor:
        """Training rows as they came, (n, d)."""
        return self.trajectory[0].to(self.weights.dtype)

    def fit(self, rows: Tensor, keys: Tensor | None = None) -> Shifted:
        """Weighs and shifts the training rows and keeps their path.

        Args:
            rows: (n, d).
            keys: of the rows' order, see `density_weights`.

        Raises:
            ScreenerError: fewer than two rows.
        """
        if len(rows) < 2:
            raise ScreenerError(f"a mean shift needs two rows, but got {len(rows)}: give more")
        if len(rows) < _FEW_ROWS:
            logger.warning(
                "%d rows are few for a mean shift: each is moved by %d neighbours, not by %d",
                len(rows),
                self.settings.neighbours(len(rows)),
                self.settings.k,
            )
        self.weights = density_weights(rows, self.settings, keys)
        shifted = shift_together(rows, self.weights, self.settings)
        self.trajectory = shifted.trajectory
        return shifted

    @torch.no_grad()
    def forward(self, queries: Tensor, leave_out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Moves queries.

        Args:
            queries: (m, d).
            leave_out: numbers of training rows that do not count as neighbours, one a query, (m,).

        Returns:
            Where they end, (m, d), and their displacement, (m,).
        """
        k = self.settings.neighbours(len(self.weights))
        displacement = queries.new_zeros(len(queries))
        for start in self.trajectory:
            rows = start.to(self.weights.dtype)
            means = local_means(queries, rows, self.weights, k, leave_out)
            queries, moves = _step(queries, means, self.settings.rate)
            displacement = displacement + moves
        return queries, displacement
