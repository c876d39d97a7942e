"""Distance to the nearest of a bank of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from screener_nnu.densities.fitted import FittedDensity
from screener_nnu.densities.k_center import distances, greedy_k_center
from screener_nnu.errors import ScreenerError
from screener_nnu.setting_values import Count, OneOf, parse

# Distances that are held at a time: 10 MB stay near a core's cache.
_BLOCK_NUMBERS = 5 << 19
# Candidates beyond the neighbours, and the size of a bank below which they do not pay.
_SPARE, _SMALL_BANK = 11, 256
# Largest relative error of rounding, by the precision that matrix products are allowed.
_ROUNDING = {"highest": 2.0**-24, "high": 2.0**-11, "medium": 2.0**-8}


@dataclass(frozen=True)
class NearestNeighboursSettings:
    """Settings of `NearestNeighboursDensity`.

    Attributes:
        bank: rows that are kept at most.
        neighbours: nearest rows of the bank whose distances are averaged, at most `bank`.
        coreset: how rows are chosen if there are more: `k_center`, greedily, so that no row is far
            from the bank, or `random`.
        candidates: rows that `k_center` chooses from at most, drawn at random from all; its time
            grows with their number times `bank` (200 000 x 32 numbers, 10 000 rows: half a minute
            on one core).
        projection: width of the random projection that `k_center` measures distances in; rows that
            are no wider are taken as they are.
    """

    bank: Count = 10_000
    neighbours: Count = 5
    coreset: Annotated[str, OneOf("k_center", "random")] = "k_center"
    candidates: Count = 200_000
    projection: Count = 32

    def __post_init__(self) -> None:
        """Checks the settings that depend on each other."""
        if self.neighbours > self.bank:
            raise ValueError(
                f"neighbours must be at most bank, but are {self.neighbours} and {self.bank}"
            )
        if self.candidates < self.bank:
            raise ValueError(
                f"candidates must be at least bank, but are {self.candidates} and {self.bank}"
            )


class NearestNeighboursDensity(FittedDensity):
    """Mean Euclidean distance to the k nearest rows of a bank, negated.

    The bank is what was fitted to, or a coreset of it. There is no likelihood: the score has no
    unit, and tells which of two rows is the more typical one.

    Neighbours are searched by matrix products and measured pair by pair. A product rounds
    differently with the number of rows, so a row counts as searched only if its candidates must be
    the nearest ones whatever the rounding; the others, which lie far from the bank, are compared
    with all of it. A score thus depends on its row alone, to the last bit.

    References:
        Roth et al., Towards Total Recall in Industrial Anomaly Detection (PatchCore), CVPR 2022,
        section 3.2, for the coreset (https://arxiv.org/abs/2106.08265).
        Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach,
        ICLR 2018, for the greedy choice (https://arxiv.org/abs/1708.00489).

    Args:
        dim: channels d of the descriptor map.
        cond_dim: 0; there is no conditional form.
        bank, neighbours, coreset, candidates, projection: see `NearestNeighboursSettings`.

    Raises:
        ScreenerError: a condition, or a setting outside its limits.

    Example:
        >>> density = NearestNeighboursDensity(1, neighbours=2)
        >>> density.fit(torch.tensor([[0.0], [1.0], [5.0]]), None, torch.Generator())
        >>> density.log_prob(torch.tensor([2.0]).view(1, 1, 1, 1, 1)).item()
        -1.5
    """

    unit: ClassVar[str] = "none"
    Settings: ClassVar[type] = NearestNeighboursSettings
    bank: Tensor

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        bank: int = NearestNeighboursSettings.bank,
        neighbours: int = NearestNeighboursSettings.neighbours,
        coreset: str = NearestNeighboursSettings.coreset,
        candidates: int = NearestNeighboursSettings.candidates,
        projection: int = NearestNeighboursSettings.projection,
    ) -> None:
        """Checks the settings; `fit` does the rest."""
        super().__init__(dim, cond_dim)
        if cond_dim:
            raise ScreenerError("the density knn takes no condition: choose condition.kind=none")
        values = {"bank": bank, "neighbours": neighbours, "coreset": coreset}
        values |= {"candidates": candidates, "projection": projection}
        self.settings: NearestNeighboursSettings = parse(self.Settings, values, "knn")
        self.register_buffer("bank", torch.zeros(0, dim))

    @property
    def least_rows(self) -> int:
        """As many as there are neighbours, and two."""
        return max(2, self.settings.neighbours)

    def _fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        self.bank = self._coreset(y, generator).to(self.initialised.device)

    def _coreset(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        size = self.settings.bank
        if len(rows) <= size:
            return rows.clone()
        drawn = torch.randperm(len(rows), generator=generator).to(rows.device)
        if self.settings.coreset == "random":
            return rows[drawn[:size]]
        if len(rows) > self.settings.candidates:
            rows = rows[drawn[: self.settings.candidates]]
        width = self.settings.projection
        projected = rows
        if self.dim > width:
            directions = torch.randn(self.dim, width, generator=generator) / width**0.5
            projected = rows @ directions.to(rows.device)
        return rows[greedy_k_center(projected, size)]

    def _score_rows(self, y: Tensor, c: Tensor | None) -> Tensor:
        block = max(1, _BLOCK_NUMBERS // len(self.bank))
        return torch.cat([-self._mean_distance(rows) for rows in y.split(block)])

    def _mean_distance(self, rows: Tensor) -> Tensor:
        """Mean distance (N,) of rows (N, d) to their nearest neighbours."""
        count = min(self.settings.neighbours, len(self.bank))
        if len(self.bank) <= max(_SMALL_BANK, count + _SPARE):
            nearest = self._compared_with_all(rows, count)
        else:
            nearest, certain = self._searched(rows, count)
            rest = (~certain).nonzero()[:, 0]
            if len(rest):
                nearest = nearest.index_copy(0, rest, self._compared_with_all(rows[rest], count))
        # One addition after the other: the order of a reduction may depend on the shape.
        return sum(nearest.unbind(dim=1), start=torch.zeros_like(nearest[:, 0])) / count

    def _compared_with_all(self, rows: Tensor, count: int) -> Tensor:
        """Distances (N, count) to the nearest rows of the bank, ascending."""
        return distances(rows, self.bank).topk(count, dim=1, largest=False).values

    def _searched(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Distances (N, count) to the nearest of a few candidates, and if they are certain (N,).

        |y - b|^2 - |y|^2 = |b|^2 - 2 y.b is computed with an error of at most
        e (|b|^2 + 2 |y| |b|) <= e (2 |b|^2 + |y|^2), so (1 - 2 e) |b|^2 - 2 y.b - e |y|^2 is never
        above it. Candidates are the rows of the bank where that bound is lowest.
        """
        error = 4 * (self.dim + 4) * _ROUNDING[torch.get_float32_matmul_precision()]
        squares = self.bank.square().sum(dim=1)
        bounds = torch.addmm((1 - 2 * error) * squares, rows, self.bank.T, alpha=-2)
        lowest, candidates = bounds.topk(count + _SPARE, dim=1, largest=False)
        found = distances(rows[:, None], self.bank[candidates])[:, 0]
        nearest = found.topk(count, dim=1, largest=False).values
        others = lowest[:, -1] + (1 - 2 * error) * rows.square().sum(dim=1)
        return nearest, (1 + error) * nearest[:, -1].square() < others
