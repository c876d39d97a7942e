"""Comparison of starts, in pairs of cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.bootstrap import case_weights, interval
from screener_nnu.lowshot.measure import Record, nan_mean

Pair = tuple[int, int]
METRICS = ("dice", "nsd")
_SAMPLES = 10_000
# Differences below this are rounding of a mean, not a better case.
_DECIMALS = 12


@dataclass(frozen=True)
class Estimate:
    """A mean over cases with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CaseTable:
    """A figure of every case and start, averaged over seeds, for one size of the training set.

    Attributes:
        starts: rows.
        cases: columns, those that every start has a figure of.
        values: (starts, cases).
        by_seed: (starts, seeds), means over these cases.
        settings: pairs (fold, seed) that all starts have finished, the only ones that count.
        unfinished: pairs that only some starts have finished.
        undefined: cases left out, since reference and prediction of a start were empty.
    """

    starts: tuple[str, ...]
    cases: tuple[str, ...]
    values: NDArray[np.float64]
    by_seed: NDArray[np.float64]
    settings: tuple[tuple[int, int], ...]
    unfinished: int
    undefined: int

    def row(self, start: str) -> NDArray[np.float64]:
        """Figures (cases,) of a start."""
        return self.values[self.starts.index(start)]


@dataclass(frozen=True)
class Comparison:
    """A start against another one, on the same cases.

    Attributes:
        difference: mean of the differences.
        gain: mean relative to that of the other start, minus 1.
        better, worse, equal: cases.
        p: Wilcoxon signed-rank test, two-sided; NaN when no case differs.
        p_holm: the same, corrected for all comparisons of the table; NaN until that is done.
        effect: matched-pairs rank-biserial correlation, -1 to 1.
    """

    difference: Estimate
    gain: float
    better: int
    worse: int
    equal: int
    p: float
    effect: float
    p_holm: float = float("nan")


def case_table(
    records: Iterable[Record], metric: str, num_cases: int, starts: Sequence[str]
) -> CaseTable | None:
    """Figures of one size of the training set, on the settings that all starts have finished.

    A start that has finished none is left out, so that a failed start does not hide the others.

    Args:
        records: of all trainings.
        metric: `dice` or `nsd`.
        num_cases: size of the training set.
        starts: order of the rows.

    Returns:
        The table; `None` when there is no setting that all of them have finished.
    """
    found = _by_setting(records, metric, num_cases)
    present = tuple(start for start in starts if start in found)
    if not present:
        return None
    every = {pair for start in present for pair in found[start]}
    common = sorted(pair for pair in every if all(pair in found[start] for start in present))
    if not common:
        return None
    names = sorted({case for pair in common for case in found[present[0]][pair]})
    values = np.array([_cases_and_seeds(found[start], common, names) for start in present])
    means = np.apply_along_axis(nan_mean, 2, values)
    defined = np.isfinite(means).all(axis=0)
    # A seed's mean is over the cases that all starts have a figure of in that seed.
    both = np.where(np.isfinite(values).all(axis=0), values, np.nan)
    return CaseTable(
        present,
        tuple(case for case, counts in zip(names, defined, strict=True) if counts),
        means[:, defined],
        np.apply_along_axis(nan_mean, 1, both[:, defined]),
        tuple(common),
        len(every) - len(common),
        int((~defined).sum()),
    )


def _by_setting(
    records: Iterable[Record], metric: str, num_cases: int
) -> dict[str, dict[Pair, dict[str, float]]]:
    """Figures by start, pair (fold, seed) and case."""
    found: dict[str, dict[Pair, dict[str, float]]] = {}
    for record in records:
        if record.setting.num_cases == num_cases:
            pair = (record.setting.fold, record.setting.seed)
            cases = found.setdefault(record.start, {}).setdefault(pair, {})
            cases[record.case] = getattr(record, metric)
    return found


def _cases_and_seeds(
    found: dict[Pair, dict[str, float]], pairs: Sequence[Pair], names: Sequence[str]
) -> NDArray[np.float64]:
    """Figures (cases, seeds) of a start; NaN where a case was not validated on."""
    seeds = sorted({seed for _, seed in pairs})
    return np.array(
        [
            [
                nan_mean(found[pair].get(case, np.nan) for pair in pairs if pair[1] == seed)
                for seed in seeds
            ]
            for case in names
        ]
    )


def estimate(values: NDArray[np.float64]) -> Estimate:
    """Mean of cases (cases,) with its interval; the same cases are drawn for every start."""
    if not values.size:
        return Estimate(*[float("nan")] * 3)
    drawn = case_weights(values.size, _SAMPLES, 0) @ values / values.size
    ends = interval(drawn, values.size)
    return Estimate(float(values.mean()), ends.low, ends.high)


def compare(values: NDArray[np.float64], reference: NDArray[np.float64]) -> Comparison:
    """A start against a reference, both (cases,) in the same order."""
    from scipy.stats import wilcoxon

    differences = np.round(values - reference, _DECIMALS)
    p = float(wilcoxon(differences).pvalue) if differences.any() else float("nan")
    mean = float(reference.mean()) if reference.size else 0.0
    return Comparison(
        estimate(differences),
        float(values.mean()) / mean - 1 if mean else float("nan"),
        int((differences > 0).sum()),
        int((differences < 0).sum()),
        int((differences == 0).sum()),
        p,
        rank_biserial(differences),
    )


def rank_biserial(differences: NDArray[np.float64]) -> float:
    """Matched-pairs rank-biserial correlation: the effect size of the signed-rank test.

    The share of the rank sum that speaks for a difference above zero, minus the share against it.

    Args:
        differences: of the pairs (n,); zeros are left out, as in the test.

    Returns:
        -1 to 1; NaN when all differences are zero.

    References:
        Kerby, The simple difference formula, Comprehensive Psychology 3 (2014),
        https://doi.org/10.2466/11.IT.3.1

    Example:
        >>> rank_biserial(np.array([3.0, 2.0, -1.0]))
        0.6666666666666666
    """
    from scipy.stats import rankdata

    nonzero = differences[differences != 0]
    if not nonzero.size:
        return float("nan")
    ranks = rankdata(np.abs(nonzero))
    return float(np.sum(ranks * np.sign(nonzero)) / ranks.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction of p values for their number; NaN stays and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if not np.isnan(p))
    corrected = [float("nan")] * len(p_values)
    highest = 0.0
    for place, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, p * (len(order) - place)))
        corrected[index] = highest
    return corrected
