"""Figures of whole cases: how well one score a case tells abnormal from normal ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.bootstrap import SAMPLES, Interval, case_weights, interval
from screener_nnu.evaluation.metrics import average_precision, cumulate, weighted_auroc

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

#: Titles of the figures of all thresholds.
RANKING = {"auroc": "AUROC", "average_precision": "AP"}
#: Titles of the figures of cases that are flagged or not.
FLAGGING = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
}
# Samples drawn together, so that many cases do not fill the memory.
_BATCH = 100


@dataclass(frozen=True)
class Resampling:
    """Bootstrap samples of cases, the same ones for every score, so that methods are paired.

    Attributes:
        weights: how often each case is drawn in each sample `(S, C)`.
        units: cases or groups of cases that were drawn.
    """

    weights: FloatArray
    units: int

    @classmethod
    def of(cls, groups: Sequence[str], seed: int = 0, samples: int = SAMPLES) -> Resampling:
        """Draws whole groups with replacement; a case alone is a group of its own name."""
        weights = case_weights(len(groups), samples, seed, groups)
        return cls(weights, len(set(groups)))

    def interval(self, values: FloatArray) -> Interval:
        """95 % percentile interval of the samples on which a figure is defined."""
        return interval(values, self.units)


def case_figures(
    scores: FloatArray, abnormal: BoolArray, flagged: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    """Computes every figure of a score.

    Args:
        scores: of C cases `(C,)`.
        abnormal: which of them are abnormal `(C,)`.
        flagged: 1 for cases that are flagged, 0 for others, NaN where it is not known `(C,)`.
        weights: how often each case counts `(S, C)`.

    Returns:
        Figures by name `(S,)`, NaN where they are undefined.
    """
    batches = [
        _figures(scores, abnormal, flagged, weights[start : start + _BATCH])
        for start in range(0, len(weights), _BATCH)
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _figures(
    scores: FloatArray, abnormal: BoolArray, flagged: FloatArray, weights: FloatArray
) -> dict[str, FloatArray]:
    order = np.argsort(scores, kind="stable")
    ties = np.flatnonzero(np.diff(scores[order], prepend=-np.inf) > 0)
    positive, negative = (
        np.add.reduceat((weights * kind)[:, order], ties, axis=1) for kind in (abnormal, ~abnormal)
    )
    known = np.isfinite(flagged)
    found = _share(weights, flagged == 1, abnormal & known)
    passed = _share(weights, flagged == 0, ~abnormal & known)
    right = flagged == abnormal
    one_kind = (positive.sum(axis=1) == 0) | (negative.sum(axis=1) == 0)
    return {
        "auroc": weighted_auroc(scores, weights * abnormal, weights * ~abnormal),
        # Without a normal case every ranking is right, which says nothing.
        "average_precision": np.where(one_kind, np.nan, average_precision(positive, negative)),
        "sensitivity": found,
        "specificity": passed,
        "accuracy": _share(weights, right, known),
        "balanced_accuracy": (found + passed) / 2,
    }


def _share(weights: FloatArray, chosen: BoolArray, of: BoolArray) -> FloatArray:
    """Weight of the chosen among some cases `(S,)`, NaN where there are none of these."""
    total = weights @ of.astype(float)
    part = weights @ (chosen & of).astype(float)
    return np.divide(part, total, out=np.full_like(total, np.nan), where=total > 0)


def roc_of_cases(scores: FloatArray, abnormal: BoolArray) -> tuple[FloatArray, FloatArray]:
    """False and true positive rates from the highest score down, both from 0 to 1."""
    values = np.unique(scores)
    places = np.searchsorted(values, scores)
    counts = (np.bincount(places[kind], minlength=values.size) for kind in (~abnormal, abnormal))
    false, true = (np.append(0.0, cumulate(count)) for count in counts)
    return false / false[-1], true / true[-1]


def youden_threshold(scores: FloatArray, abnormal: BoolArray) -> tuple[float, float]:
    """The threshold with the highest sensitivity + specificity - 1 (Youden, Cancer 1950).

    A case is flagged from the threshold on, which is one of the scores; of equal ones the highest.

    Args:
        scores: `(C,)`.
        abnormal: which cases are abnormal `(C,)`, some and not all.

    Returns:
        The threshold, and the index there.
    """
    false, true = roc_of_cases(scores, abnormal)
    best = int(np.argmax((true - false)[1:]))
    return float(np.unique(scores)[::-1][best]), float((true - false)[1:][best])
