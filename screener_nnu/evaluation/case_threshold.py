"""Flags cases by a threshold of the case score that was chosen on a few labelled ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.case_figures import youden_threshold
from screener_nnu.evaluation.case_table import (
    CASE_SCORE,
    LabelledCases,
    MatchedCases,
    ScoredCases,
    match_cases,
)
from screener_nnu.evaluation.tables import named


@dataclass(frozen=True)
class ChosenThresholds:
    """Thresholds of all methods, and what they leave to measure on.

    Attributes:
        scored: the methods with the flags of these thresholds.
        matched: cases to measure on, without those of the choice.
        thresholds: of each method, in words.
        leaky: no other cases are left, so that these are measured on themselves.
        notes: remarks on the choice.
    """

    scored: dict[str, ScoredCases]
    matched: MatchedCases
    thresholds: dict[str, str]
    leaky: bool
    notes: list[str]


def choose_thresholds(
    scored: Mapping[str, ScoredCases],
    matched: MatchedCases,
    labelled: LabelledCases,
    choosing: LabelledCases,
) -> ChosenThresholds:
    """Takes the best Youden index of the case score on some cases, and leaves these out.

    Args:
        scored: of every method.
        matched: cases that are to be judged.
        labelled: their labels and groups.
        choosing: labels of the cases to choose on, of which some may be to be judged as well.

    Raises:
        ScreenerError: a case has another label in the other table, or there are no cases of both
            kinds to choose on.
    """
    if odd := [c for c, v in choosing.labels.items() if labelled.labels.get(c, v) != v]:
        raise ScreenerError(
            f"--threshold_from and --cases differ in the label of {named(odd)}; correct one of them"
        )
    available = match_cases(choosing, scored)
    few = available.cases
    abnormal = np.array([choosing.labels[case] for case in few], dtype=bool)
    if abnormal.all() or not abnormal.any():
        raise ScreenerError(
            "a threshold is chosen on normal and abnormal cases that every method has a score of, "
            f"but --threshold_from has {int((~abnormal).sum())} and {int(abnormal.sum())} of these"
        )
    flagged: dict[str, ScoredCases] = {}
    thresholds: dict[str, str] = {}
    for method, of_method in scored.items():
        scores = of_method.scores[CASE_SCORE]
        threshold, index = youden_threshold(np.array([scores[case] for case in few]), abnormal)
        flags = {case: score >= threshold for case, score in scores.items()}
        flagged[method] = replace(of_method, flags=flags)
        thresholds[method] = (
            f"{CASE_SCORE} {threshold:.6g}, the best Youden index ({index:.3f}) on {len(few)} cases"
        )
    rest = sorted(set(matched.cases) - set(few))
    notes = []
    if available.left_out:
        notes.append(f"not there to choose the threshold on: {named(available.left_out)}")
    groups = choosing.groups | labelled.groups
    used = {groups[case] for case in few if case in groups}
    if related := [case for case in rest if labelled.groups.get(case) in used]:
        notes.append(f"of a group that the threshold was chosen on, too: {named(related)}")
    return ChosenThresholds(
        flagged, _without(matched, few) if rest else matched, thresholds, not rest, notes
    )


def _without(matched: MatchedCases, few: list[str]) -> MatchedCases:
    taken = set(few)
    reason = "the threshold was chosen on it"
    return MatchedCases(
        [case for case in matched.cases if case not in taken],
        matched.left_out | {case: reason for case in matched.cases if case in taken},
        [case for case in matched.unlabelled if case not in taken],
    )
