"""Dice at a threshold chosen on a few annotated cases and measured on all others.

What a user with k annotated scans would get, where the best Dice over thresholds is only an upper
bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from screener_nnu.evaluation.histograms import CaseHistogram, merge_histograms
from screener_nnu.evaluation.metrics import best_bin, cumulate, dice_curve

CASES = (1, 5, 10)
"""Numbers of annotated cases to choose the threshold on."""
DRAWS = 100
"""Random choices of these cases."""
_BATCH = 32

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ChosenDice:
    """Dice at thresholds chosen on k annotated cases.

    Attributes:
        mean: mean over the draws of the pooled Dice of the remaining cases.
        spread: its standard deviation over the draws.
        cases: mean Dice of each case over the draws that left it out; NaN without annotation.
    """

    mean: float
    spread: float
    cases: dict[str, float]


def choose_cases(ill: NDArray[np.intp], k: int, draws: int, seed: int) -> NDArray[np.intp]:
    """Draws k of the annotated cases, without repeats, `(draws, k)`."""
    rng = np.random.default_rng([seed, k])
    return np.stack([rng.choice(ill, k, replace=False) for _ in range(draws)])


def annotated_cases(histograms: Sequence[CaseHistogram]) -> NDArray[np.intp]:
    """Places of the cases that have an annotation."""
    return np.flatnonzero([histogram.positive.any() for histogram in histograms])


def dice_after_choice(
    histograms: Sequence[CaseHistogram], k: int, draws: int = DRAWS, seed: int = 0
) -> ChosenDice:
    """Chooses the threshold of the best pooled Dice on k cases, and measures it on all others.

    Args:
        histograms: one histogram a case, over the same bins.
        k: annotated cases to choose on; where no more than k are annotated, Dice is NaN.
        draws: random choices of the cases.
        seed: seed of the choices.
    """
    ill = annotated_cases(histograms)
    undefined = float("nan")
    if ill.size <= k:
        return ChosenDice(undefined, undefined, {h.case: undefined for h in histograms})
    chosen = choose_cases(ill, k, draws, seed)
    pooled = merge_histograms(histograms)
    all_hits = cumulate(pooled.positive)[::-1]
    all_false = cumulate(pooled.negative)[::-1]
    dice, bins = np.empty(draws), np.empty(draws, dtype=np.intp)
    for draw, members in enumerate(chosen):
        few = merge_histograms([histograms[member] for member in members])
        at = bins[draw] = best_bin(dice_curve(few.positive, few.negative))
        hits = all_hits[at] - few.positive[at:].sum()
        false_alarms = all_false[at] - few.negative[at:].sum()
        annotated = all_hits[0] - few.positive.sum()
        dice[draw] = 2 * hits / (hits + false_alarms + annotated)
    left_out = np.ones((draws, len(histograms)), dtype=bool)
    left_out[np.arange(draws)[:, None], chosen] = False
    cases = {
        histogram.case: _mean_dice(histogram, bins[left_out[:, place]])
        for place, histogram in enumerate(histograms)
    }
    return ChosenDice(float(dice.mean()), float(dice.std()), cases)


def _mean_dice(histogram: CaseHistogram, bins: NDArray[np.intp]) -> float:
    """Mean Dice of a case over thresholds given by bins."""
    if not bins.size:
        return float("nan")
    return float(dice_curve(histogram.positive, histogram.negative)[bins].mean())


def bootstrap_choice(
    positive: FloatArray, negative: FloatArray, k: int, samples: int, seed: int
) -> FloatArray:
    """Resamples the choice of k cases and, with replacement, the cases it is measured on.

    Args:
        positive: annotated voxels by case and bin `(C, K)`.
        negative: other voxels by case and bin `(C, K)`.
        k: annotated cases to choose on.
        samples: number of samples.
        seed: seed of the draws.

    Returns:
        Pooled Dice `(samples,)`, NaN where no case with an annotation was drawn; all NaN where no
        more than k cases have one.
    """
    cases = positive.shape[0]
    ill = np.flatnonzero(positive.any(axis=1))
    if ill.size <= k:
        return np.full(samples, np.nan)
    chosen = choose_cases(ill, k, samples, seed)
    rng = np.random.default_rng([seed, k, 1])
    choosing, measuring = np.zeros((samples, cases)), np.zeros((samples, cases))
    choosing[np.arange(samples)[:, None], chosen] = 1.0
    for sample in range(samples):
        remaining = np.flatnonzero(choosing[sample] == 0)
        drawn = rng.choice(remaining, remaining.size)
        measuring[sample] = np.bincount(drawn, minlength=cases)
    dice = []
    for start in range(0, samples, _BATCH):
        batch = slice(start, start + _BATCH)
        at = best_bin(dice_curve(choosing[batch] @ positive, choosing[batch] @ negative))
        measured = dice_curve(measuring[batch] @ positive, measuring[batch] @ negative)
        dice.append(np.take_along_axis(measured, at[:, None], axis=-1)[:, 0])
    return np.concatenate(dice)
