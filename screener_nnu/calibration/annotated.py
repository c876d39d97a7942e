"""Thresholds from a few annotated cases, where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.histograms import CaseHistogram
from screener_nnu.evaluation.metrics import best_bin, cumulate, dice_curve
from screener_nnu.evaluation.threshold_choice import annotated_cases

RECALLS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of annotated voxels for which thresholds are kept."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class AnnotatedThresholds:
    """Thresholds (nats; voxels above are positive) chosen on annotated cases.

    Attributes:
        cases: annotated cases.
        dice_threshold: of the highest mean Dice.
        dice: that mean Dice, which is optimistic: the threshold was chosen on the same cases.
        left_out_dice: mean Dice when each case is left out of the choice of its threshold; None
            with one case.
        recall_thresholds: highest threshold with at least that mean recall, by recall; without
            recalls for which voxels below all held-out scores would have to count.
    """

    cases: int
    dice_threshold: float
    dice: float
    left_out_dice: float | None
    recall_thresholds: dict[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        recalls = {f"{recall:g}": value for recall, value in self.recall_thresholds.items()}
        return {
            "cases": self.cases,
            "dice_threshold": self.dice_threshold,
            "dice": self.dice,
            "left_out_dice": self.left_out_dice,
            "recall_thresholds": recalls,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AnnotatedThresholds:
        """Reads what `to_dict` wrote.

        Raises:
            ScreenerError: a threshold is no finite number.
        """
        recalls = {float(k): float(v) for k, v in values["recall_thresholds"].items()}
        left_out = values["left_out_dice"]
        made = cls(
            int(values["cases"]),
            float(values["dice_threshold"]),
            float(values["dice"]),
            None if left_out is None else float(left_out),
            recalls,
        )
        numbers = [made.dice_threshold, made.dice, *recalls, *recalls.values()]
        if made.cases < 1 or not np.isfinite(numbers).all():
            raise ScreenerError("its thresholds of annotated cases are no numbers")
        return made


def choose_thresholds(
    histograms: Sequence[CaseHistogram], edges: NDArray[np.float32]
) -> AnnotatedThresholds:
    """Chooses thresholds by the mean over cases, so that a large lesion is one case like others.

    Args:
        histograms: one a case, over the same bins.
        edges: lower bounds of the bins `(K,)`.

    Raises:
        ScreenerError: no case has an annotation, or all voxels together have the best Dice.
    """
    ill = [histograms[place] for place in annotated_cases(histograms)]
    if not ill:
        raise ScreenerError("no case has an annotated voxel: give masks with values above zero")
    dice = np.stack([dice_curve(case.positive, case.negative) for case in ill])
    hits = np.stack([cumulate(case.positive)[::-1] for case in ill])
    recall = (hits / hits[:, :1]).mean(axis=0)
    best = int(best_bin(dice.mean(axis=0)))
    if best == 0:
        raise ScreenerError(
            "no threshold has a higher Dice than marking every voxel: the annotation does not "
            "stand out for this model, lies outside of the body or belongs to other scans"
        )
    # Recall falls with the threshold: the last bin that still has it is the highest threshold.
    places = {r: int(np.flatnonzero(recall >= r - 1e-12)[-1]) for r in RECALLS}
    return AnnotatedThresholds(
        len(ill),
        _below(edges, best),
        float(dice.mean(axis=0)[best]),
        _left_out(dice),
        # Below the lowest bin there is no threshold: everything is in it, to minus infinity.
        {r: _below(edges, place) for r, place in places.items() if place > 0},
    )


def _left_out(dice: FloatArray) -> float | None:
    """Mean Dice of each case at the threshold that is best for the others."""
    cases = dice.shape[0]
    if cases < 2:
        return None
    others = best_bin((dice.sum(axis=0) - dice) / (cases - 1))
    return float(dice[np.arange(cases), others].mean())


def _below(edges: NDArray[np.float32], place: int) -> float:
    """A threshold that exactly the voxels in this bin and those after it lie above."""
    return float(np.nextafter(np.float32(edges[place]), np.float32(-np.inf)))
