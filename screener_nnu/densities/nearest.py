"""Distance to the nearest of a bank of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from screener_nnu.densities.fitted import FittedDensity
from screener_nnu.densities.k_center import greedy_k_center
from screener_nnu.densities.neighbour_search import nearest_rows, row_distances
from screener_nnu.errors import ScreenerError
from screener_nnu.setting_values import Count, OneOf, parse

# Of distances that are held at a time: they stay near a core's cache.
_CHUNK_BYTES = 10 << 20


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

    A score depends on its row alone, to the last bit.

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
        count = min(self.settings.neighbours, len(self.bank))
        index = nearest_rows(y, self.bank, count, _CHUNK_BYTES, self.bank.dtype)
        found = [row_distances(y, self.bank[column]) for column in index.T]
        nearest = torch.stack(found, dim=1).sort(dim=1).values
        # One addition after the other: the order of a reduction may depend on the shape.
        return -sum(nearest.unbind(dim=1), start=torch.zeros_like(nearest[:, 0])) / count
