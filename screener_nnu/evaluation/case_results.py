"""Figures of each score of each method on the same cases, with intervals, and their differences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from screener_nnu.evaluation.bootstrap import Interval
from screener_nnu.evaluation.case_figures import (
    FLAGGING,
    RANKING,
    BoolArray,
    FloatArray,
    Resampling,
    case_figures,
)
from screener_nnu.evaluation.case_table import CASE_SCORE, ScoredCases
from screener_nnu.evaluation.metrics import weighted_auroc


@dataclass(frozen=True)
class ScoreResult:
    """Figures of one score of one method.

    Attributes:
        method: name of the method.
        score: name of the score.
        values: of the cases `(C,)`, NaN for those without one.
        figures: by name, NaN where they are undefined.
        intervals: 95 % bootstrap interval of each figure; empty without.
    """

    method: str
    score: str
    values: FloatArray
    figures: dict[str, float]
    intervals: dict[str, Interval]


@dataclass(frozen=True)
class Difference:
    """AUROC of the first method minus that of another one, on the cases that both scored."""

    first: str
    other: str
    score: str
    auroc: float
    interval: Interval | None


def judge_score(
    method: str,
    score: str,
    scored: ScoredCases,
    cases: list[str],
    abnormal: BoolArray,
    resampling: Resampling | None,
) -> ScoreResult:
    """Computes the figures of one score on the cases that have it.

    Args:
        method: name of the method.
        score: name of the score.
        scored: scores and flags of the method.
        cases: names of C cases.
        abnormal: which of them are abnormal `(C,)`.
        resampling: bootstrap samples of them; None leaves the intervals out.
    """
    values = np.array([scored.scores[score].get(case, np.nan) for case in cases])
    flagged = np.array([scored.flags.get(case, np.nan) for case in cases], dtype=float)
    known = np.isfinite(values)
    names = [*RANKING, *(FLAGGING if score == CASE_SCORE else [])]
    given = values[known], abnormal[known], flagged[known]
    pooled = case_figures(*given, np.ones((1, known.sum())))
    intervals = {}
    if resampling is not None:
        drawn = case_figures(*given, resampling.weights[:, known])
        intervals = {name: resampling.interval(drawn[name]) for name in names}
    return ScoreResult(method, score, values, {n: float(pooled[n][0]) for n in names}, intervals)


def auroc_differences(
    results: Sequence[ScoreResult], abnormal: BoolArray, resampling: Resampling | None
) -> Iterator[Difference]:
    """Pairs of the first method and each other one that have a score of one name."""
    for one in (result for result in results if result.method == results[0].method):
        for other in results:
            if other.method == one.method or other.score != one.score:
                continue
            both = np.isfinite(one.values) & np.isfinite(other.values)
            pair = one.values[both], other.values[both]
            drawn = None
            if resampling is not None:
                weights = resampling.weights[:, both]
                drawn = resampling.interval(_difference(*pair, abnormal[both], weights))
            auroc = _difference(*pair, abnormal[both], np.ones(int(both.sum())))
            yield Difference(one.method, other.method, one.score, float(auroc), drawn)


def _difference(
    first: FloatArray, second: FloatArray, abnormal: BoolArray, weights: FloatArray
) -> FloatArray:
    """AUROC of the first scores minus that of the second ones, `(...)` of weights `(..., C)`."""
    kinds = weights * abnormal, weights * ~abnormal
    return weighted_auroc(first, *kinds) - weighted_auroc(second, *kinds)
