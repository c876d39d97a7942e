"""Anomaly scores of vectors, one an image or a case, by the mean shift and by what is simpler."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from screener_nnu.densities.density_weights import density_weights, order_keys
from screener_nnu.densities.gaussian_pca import GaussianPcaDensity, GaussianPcaSettings
from screener_nnu.densities.mahalanobis import mahalanobis, new_gaussian
from screener_nnu.densities.mean_shift import (
    LEAST_ROWS,
    MeanShiftSettings,
    ReferenceShift,
    shift_together,
)
from screener_nnu.densities.neighbour_search import nearest_rows, row_distances
from screener_nnu.densities.sized_by_data import SizedByData
from screener_nnu.errors import ScreenerError, some
from screener_nnu.setting_values import Count, OneOf

logger = logging.getLogger(__name__)

#: How queries are moved: by the training vectors alone, or together with each other.
REFERENCE, COHORT = "reference", "cohort"
#: Names of the scores, that of the reference mode first.
VECTOR_COLUMNS = ("displacement", "gaussian", "rank_mean", "plain", "distance", "knn")


@dataclass(frozen=True)
class VectorScoreSettings(MeanShiftSettings, GaussianPcaSettings):
    """Settings of `VectorScores`: of the shift, of the Gaussians behind it, and its own.

    Attributes:
        nearest: training vectors whose mean distance is the column `knn`.
        gaussian_on: the shifted training vectors that the Gaussian of the cohort mode is fitted to:
            shifted among each other (`train_only`), or together with the cohort (`joint_train`).
        seed: of the order that blocks are cut from.
    """

    nearest: Count = 5
    gaussian_on: Annotated[str, OneOf("train_only", "joint_train")] = "train_only"
    seed: int = 42


class VectorScores(SizedByData):
    """Scores vectors by a Gaussian after a mean shift, and by simpler distances beside it.

    All columns are higher for what is more anomalous. Vectors are standardised by mean and
    standard deviation of the training vectors.

    References:
        Kar, Lakshmi S, Bej, Improved Anomaly Detection in Medical Images via Mean Shift Density
        Enhancement (https://arxiv.org/abs/2604.19191). The published scores are the column
        `gaussian` of the cohort mode.

    Args:
        width: d of the vectors.
        settings: of all.

    Example:
        >>> vectors = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
        >>> scores = VectorScores(4)
        >>> scores.fit(vectors[:200])
        >>> columns = scores.score(torch.cat([vectors[200:], torch.full((1, 4), 6.0)]))
        >>> sorted(columns)[:5]
        ['cohort', 'cohort_size', 'displacement', 'distance', 'gaussian']
        >>> int(columns["displacement"].argmax())
        100
    """

    mean: Tensor
    std: Tensor
    keys: Tensor
    own_scores: Tensor

    def __init__(self, width: int, settings: VectorScoreSettings | None = None) -> None:
        """Starts without training vectors."""
        super().__init__()
        self.settings = settings or VectorScoreSettings()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))
        self.register_buffer("keys", torch.empty(0, dtype=torch.int64))
        # Gaussian and displacement of training vectors that are not their own neighbours.
        self.register_buffer("own_scores", torch.empty(2, 0))
        self.shift = ReferenceShift(self.settings)
        self.shifted = new_gaussian(width, self.settings)
        self.plain = new_gaussian(width, self.settings)

    @property
    def is_fitted(self) -> bool:
        """Whether there are training vectors."""
        return len(self.keys) > 0

    @torch.no_grad()
    def fit(self, vectors: Tensor, names: Sequence[str] | None = None) -> None:
        """Takes training vectors, all normal; a second call starts anew.

        Args:
            vectors: (n, d).
            names: of the images, which the order of the blocks depends on; numbers without them.

        Raises:
            ScreenerError: too few vectors, another width, or values that are no finite numbers.
        """
        names = _names(vectors, names, "training vector")
        self._check(vectors, names)
        if len(vectors) < LEAST_ROWS:
            raise ScreenerError(
                f"{len(vectors)} training vectors are too few, {LEAST_ROWS} are the least: give "
                "more normal images"
            )
        vectors = vectors.to(self.mean)
        std, mean = torch.std_mean(vectors.double(), dim=0, correction=0)
        varies = std > torch.finfo(vectors.dtype).eps * mean.abs()
        self.mean, self.std = mean.to(vectors), torch.where(varies, std, 1.0).to(vectors)
        self.keys = order_keys(names, self.settings.seed).to(vectors.device)
        rows = self._standardised(vectors)
        _fit(self.plain, rows)
        _fit(self.shifted, self.shift.fit(rows, self.keys).positions)
        ends, moved = self.shift(rows, torch.arange(len(rows), device=rows.device))
        self.own_scores = torch.stack([mahalanobis(self.shifted, ends), moved])

    def most_displaced(self, count: int = 10) -> Tensor:
        """Numbers of the training vectors that move most: abnormal ones may hide among them."""
        return self.own_scores[1].argsort(descending=True, stable=True)[:count]

    @torch.no_grad()
    def score(
        self,
        vectors: Tensor,
        mode: str = REFERENCE,
        names: Sequence[str] | None = None,
        **changes: Any,
    ) -> dict[str, Tensor]:
        """Scores vectors.

        Args:
            vectors: (m, d).
            mode: `reference`, where a score depends on the vector alone, or `cohort`, the published
                way, where vectors are moved together with each other.
            names: of the images.
            **changes: settings of the cohort mode, of the weights and of the Gaussian, that differ
                from those of the fit.

        Returns:
            Columns (m,), the one to look at first: `gaussian` in cohort mode, else `displacement`,
            after and of the shift; `rank_mean` of the two; `plain` Gaussian without a shift;
            `distance` to the training mean; `knn`, the mean distance to the nearest training
            vectors; `cohort`, whether the first three depend on the other vectors, and
            `cohort_size`, on how many.

        Raises:
            ScreenerError: another width, another mode, or values that are no finite numbers.
        """
        names = _names(vectors, names, "vector")
        self._check(vectors, names)
        if mode not in (REFERENCE, COHORT):
            raise ScreenerError(f"there is no mode '{mode}'; known: {REFERENCE}, {COHORT}")
        if not self.is_fitted:
            raise RuntimeError("fit training vectors first")
        rows = self._standardised(vectors.to(self.mean))
        if mode == COHORT and len(rows) < 2:
            logger.warning("One vector is no cohort: it is scored in reference mode")
            mode = REFERENCE
        if mode == COHORT:
            columns, size = self._in_cohort(rows, names, **changes), len(rows)
        else:
            ends, moved = self.shift(rows)
            distances = mahalanobis(self.shifted, ends)
            columns, size = self._shift_columns(distances, moved, self.own_scores), 1
        first = "gaussian" if mode == COHORT else "displacement"
        return {
            first: columns[first],
            **columns,
            "plain": mahalanobis(self.plain, rows),
            "distance": row_distances(rows, torch.zeros_like(rows)),
            "knn": self._neighbour_distance(rows, names),
            "cohort": torch.full((len(rows),), mode == COHORT, device=rows.device),
            "cohort_size": torch.full((len(rows),), size, device=rows.device),
        }

    def _in_cohort(self, rows: Tensor, names: Sequence[str], **changes: Any) -> dict[str, Tensor]:
        """Columns of the shift of training vectors and queries together."""
        settings = replace(self.settings, **changes)
        logger.warning(
            "These scores depend on the other images of this batch (%d). A batch with another "
            "share of anomalies gives other scores to the same image.",
            len(rows),
        )
        count = len(self.keys)
        together = torch.cat([self.shift.rows, rows])
        keys = torch.cat([self.keys, order_keys(names, settings.seed).to(self.keys)])
        weights = density_weights(together, settings, keys)
        ends, moved, _ = shift_together(together, weights, settings)
        gaussian = self.shifted
        if settings.gaussian_on == "joint_train":
            gaussian = new_gaussian(len(self.mean), settings)
            _fit(gaussian.to(ends.device), ends[:count])
        distances = mahalanobis(gaussian, ends)
        own = torch.stack([distances[:count], moved[:count]])
        return self._shift_columns(distances[count:], moved[count:], own)

    @staticmethod
    def _shift_columns(gaussian: Tensor, moved: Tensor, own: Tensor) -> dict[str, Tensor]:
        ranks = [_rank(*pair) for pair in zip((gaussian, moved), own, strict=True)]
        return {
            "gaussian": gaussian,
            "displacement": moved,
            "rank_mean": (ranks[0] + ranks[1]) / 2,
        }

    def _neighbour_distance(self, rows: Tensor, names: Sequence[str]) -> Tensor:
        training = self.shift.rows
        index = nearest_rows(rows, training, min(self.settings.nearest, len(training)))
        distances = [row_distances(rows, training[column]) for column in index.T]
        known = torch.stack(distances).amin(dim=0) == 0
        if known.any():
            same = some(name for name, flag in zip(names, known, strict=True) if flag)
            logger.warning("Training vectors come again and look typical: %s", same)
        return sum(distances[1:], distances[0]) / len(distances)

    def _standardised(self, vectors: Tensor) -> Tensor:
        return (vectors - self.mean) / self.std

    def _check(self, vectors: Tensor, names: Sequence[str]) -> None:
        width = len(self.mean)
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise ScreenerError(
                f"vectors must be (images, {width}), but are {tuple(vectors.shape)}: use the "
                "network that the training vectors came from"
            )
        finite = torch.isfinite(vectors).all(dim=1)
        if not finite.all():
            wrong = some(name for name, good in zip(names, finite, strict=True) if not good)
            raise ScreenerError(f"vectors of {wrong} hold values that are no finite numbers")


def _fit(gaussian: GaussianPcaDensity, rows: Tensor) -> None:
    gaussian.fit(rows, None, torch.Generator())  # nothing is drawn


def _names(vectors: Tensor, names: Sequence[str] | None, kind: str) -> Sequence[str]:
    if names is None:
        return [f"{kind} {number}" for number in range(len(vectors))]
    if len(names) != len(vectors):
        raise ValueError(f"{len(names)} names of {len(vectors)} vectors")
    return names


def _rank(scores: Tensor, own: Tensor) -> Tensor:
    """Share of the training scores that are not higher; beyond the highest, its multiple.

    Ranks among the queries would make a score depend on them.
    """
    ordered = own.sort().values
    share = torch.searchsorted(ordered, scores, right=True) / len(ordered)
    highest = ordered[-1]
    beyond = (scores > highest) & (highest > 0)
    return torch.where(beyond, scores / highest, share)
