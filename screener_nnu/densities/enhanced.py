"""Mean-shift density enhancement of descriptors, position by position."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from screener_nnu.densities.fitted import FittedDensity
from screener_nnu.densities.gaussian_pca import GaussianPcaSettings
from screener_nnu.densities.mahalanobis import mahalanobis, new_gaussian
from screener_nnu.densities.mean_shift import LEAST_ROWS, MeanShiftSettings, ReferenceShift
from screener_nnu.densities.vector_scores import (
    COHORT,
    VECTOR_COLUMNS,
    VectorScores,
    VectorScoreSettings,
)
from screener_nnu.errors import ScreenerError
from screener_nnu.setting_values import OneOf, Within, parse

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EnhancedSettings(MeanShiftSettings, GaussianPcaSettings):
    """Settings of `MeanShiftDensity`: of its shift, of the Gaussian behind it, and its own.

    Attributes:
        bank: rows that are kept, drawn at random, at most.
        score: `displacement`, how far a row is moved, or `gaussian`, how far from typical it ends.
        needs_vectors: refuse fewer scans than scores of a scan as a whole need.
    """

    bank: Annotated[int, Within(at_least=LEAST_ROWS)] = 10_000
    score: Annotated[str, OneOf("displacement", "gaussian")] = "displacement"
    needs_vectors: bool = False


class MeanShiftDensity(FittedDensity):
    """How far the mean shift of a bank of descriptors moves a descriptor, or where it ends.

    A descriptor is moved by the bank alone, so that its score does not depend on the other
    positions. This is no likelihood: scores are distances, negated so that typical descriptors have
    higher ones, and there is no negative log-likelihood to report.

    References:
        Kar, Lakshmi S, Bej, Improved Anomaly Detection in Medical Images via Mean Shift Density
        Enhancement (https://arxiv.org/abs/2604.19191), for images; there the Gaussian is the score.

    Args:
        dim: channels d of the descriptor map.
        cond_dim: 0; it knows no conditions.
        **settings: fields of `EnhancedSettings`.

    Raises:
        ScreenerError: a condition, or a setting that is unknown or outside its limits.

    Example:
        >>> density = MeanShiftDensity(2)
        >>> generator = torch.Generator().manual_seed(0)
        >>> density.fit(torch.randn(500, 2, generator=generator), None, generator)
        >>> typical, far = density(torch.tensor([0.0, 9.0]).expand(1, 2, 1, 1, 2)).flatten()
        >>> bool(typical > far)
        True
    """

    unit: ClassVar[str] = "none"
    Settings: ClassVar[type] = EnhancedSettings

    def __init__(self, dim: int, cond_dim: int = 0, **settings: Any) -> None:
        """Starts without a bank."""
        if cond_dim:
            raise ScreenerError(
                "the density msde knows no conditions: choose condition.kind=none, or another "
                "density"
            )
        super().__init__(dim, cond_dim)
        self.settings: EnhancedSettings = parse(self.Settings, settings, "msde")
        self.shift = ReferenceShift(self.settings)
        self.gaussian = new_gaussian(dim, self.settings)
        self.vectors: VectorScores | None = None

    @property
    def least_rows(self) -> int:
        """Fewer rows cannot be fitted."""
        return LEAST_ROWS

    def _fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        drawn = torch.randperm(len(y), generator=generator)[: self.settings.bank]
        bank = y[drawn.sort().values.to(y.device)].to(self.initialised.device)
        # Any order of the bank is random as far as places go; blocks are drawn once more.
        keys = torch.randperm(len(bank), generator=generator)
        self.gaussian.fit(self.shift.fit(bank, keys).positions, None, generator)

    def fit_vectors(self, vectors: Tensor, names: Sequence[str]) -> list[str]:
        """Takes the mean descriptor of each training scan, of enough of them.

        Returns:
            See `FittedDensity`: those that move most.

        Raises:
            ScreenerError: there are too few, and `needs_vectors` is set.
        """
        if len(vectors) < LEAST_ROWS and not self.settings.needs_vectors:
            logger.info(
                "%d training scans are too few for scores of a scan as a whole, %d are the least",
                len(vectors),
                LEAST_ROWS,
            )
            return []
        self.vectors = self._new_vectors()
        self.vectors.fit(vectors.to(self.initialised.device), names)
        return [names[number] for number in self.vectors.most_displaced().tolist()]

    def resize_to(self, state: Mapping[str, Any], prefix: str = "") -> None:
        """Has vectors where the state has them: earlier ones have none."""
        there = f"{prefix}vectors.keys" in state
        self.vectors = self._new_vectors() if there else None
        super().resize_to(state, prefix)

    def _new_vectors(self) -> VectorScores:
        known = {field.name for field in fields(VectorScoreSettings)}
        shared = {name: value for name, value in asdict(self.settings).items() if name in known}
        return VectorScores(self.dim, VectorScoreSettings(**shared)).to(self.initialised.device)

    @property
    def has_vector_scores(self) -> bool:
        """Whether there were enough training scans."""
        return self.vectors is not None

    def vector_scores(self, vector: Tensor) -> dict[str, float]:
        """Scores of a scan by its mean descriptor, see `VectorScores`."""
        if self.vectors is None:
            return {}
        columns = self.vectors.score(vector[None], names=("this scan",))
        return {name: float(columns[name]) for name in VECTOR_COLUMNS}

    def cohort_scores(
        self, vectors: Tensor, names: Sequence[str], **changes: Any
    ) -> list[dict[str, float]]:
        """Scores of scans that are moved together, see `VectorScores.score`."""
        if self.vectors is None:
            return super().cohort_scores(vectors, names, **changes)
        columns = self.vectors.score(vectors, COHORT, names, **changes)
        lists = {name: column.tolist() for name, column in columns.items()}
        return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]

    def _score_rows(self, y: Tensor, c: Tensor | None) -> Tensor:
        ends, displacement = self.shift(y)
        if self.settings.score == "displacement":
            return -displacement
        return -mahalanobis(self.gaussian, ends)
