"""Evaluates the scores of whole cases by several methods against one label a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.case_figures import BoolArray, Resampling
from screener_nnu.evaluation.case_images import NO_LEARNING, score_images
from screener_nnu.evaluation.case_results import (
    Difference,
    ScoreResult,
    auroc_differences,
    judge_score,
)
from screener_nnu.evaluation.case_table import (
    CASE_SCORE,
    MatchedCases,
    ScoredCases,
    match_cases,
    read_case_labels,
    read_case_scores,
)
from screener_nnu.evaluation.case_threshold import choose_thresholds
from screener_nnu.evaluation.tables import named

HELD_OUT = "the 95th percentile of held-out normal cases"


@dataclass(frozen=True)
class CaseEvaluation:
    """Figures of all methods on the same cases.

    Attributes:
        results: by method and score, those of images without learning last.
        differences: between the first method and each other one.
        matched: cases that were judged, and all others by reason.
        abnormal: which of the judged ones are abnormal `(C,)`.
        groups: number of groups that were drawn whole for the intervals; 0 where cases were.
        thresholds: from where on each method flags a case, in words.
        leaky: whether the thresholds were chosen on the cases that they are measured on.
        notes: remarks on the figures, such as why one is undefined.
    """

    results: list[ScoreResult]
    differences: list[Difference]
    matched: MatchedCases
    abnormal: BoolArray
    groups: int
    thresholds: dict[str, str]
    leaky: bool
    notes: list[str] = field(default_factory=list)


def evaluate_cases(
    methods: Mapping[str, Path],
    table: Path,
    threshold_from: Path | None = None,
    images: Path | None = None,
    bootstrap: bool = True,
    seed: int = 0,
) -> CaseEvaluation:
    """Evaluates every score in `cases.csv` of each method on the labelled cases of a table.

    Args:
        methods: folder of maps with `cases.csv`, by method.
        table: CSV with columns `case`, `label`, and perhaps `group` and `split`.
        threshold_from: such a table of cases on which the threshold of the case score is chosen;
            they are left out of the figures, unless no others are there.
        images: folder of the images, for scores without learning.
        bootstrap: whether to compute intervals, over groups where the table has some.
        seed: seed of the bootstrap.

    Raises:
        ScreenerError: a file is missing or damaged, a method has an unfit name, or no case is left.
    """
    if NO_LEARNING in methods:
        raise ScreenerError(
            f"{NO_LEARNING}: the name of what stands beside the maps; choose another"
        )
    labelled = read_case_labels(table)
    scored = {method: read_case_scores(folder) for method, folder in methods.items()}
    matched = match_cases(labelled, scored)
    if not matched.cases:
        reasons = [f"{case}: {why}" for case, why in islice(matched.left_out.items(), 5)]
        raise ScreenerError(f"no case of {table} can be evaluated ({'; '.join(reasons)})")
    thresholds, leaky, notes = dict.fromkeys(methods, HELD_OUT), False, []
    if threshold_from is not None:
        choosing = read_case_labels(threshold_from, training=True)
        chosen = choose_thresholds(scored, matched, labelled, choosing)
        scored, matched, thresholds = chosen.scored, chosen.matched, chosen.thresholds
        leaky, notes = chosen.leaky, chosen.notes
    if images is not None:
        scored[NO_LEARNING] = score_images(images, list(methods.values()), matched.cases)
    abnormal = np.array([labelled.labels[case] for case in matched.cases], dtype=bool)
    # A case without a group is one of its own, whatever groups are called.
    groups = [labelled.groups.get(case, f"\t{case}") for case in matched.cases]
    resampling = Resampling.of(groups, seed) if bootstrap else None
    results = [
        judge_score(method, score, of_method, matched.cases, abnormal, resampling)
        for method, of_method in scored.items()
        for score, values in of_method.scores.items()
        if not values.keys().isdisjoint(matched.cases)
    ]
    return CaseEvaluation(
        results,
        list(auroc_differences(results, abnormal, resampling)),
        matched,
        abnormal,
        len(set(groups)) if labelled.groups else 0,
        thresholds,
        leaky,
        [*notes, *_notes(results, scored, matched.cases, abnormal)],
    )


def _notes(
    results: Sequence[ScoreResult],
    scored: Mapping[str, ScoredCases],
    cases: list[str],
    abnormal: BoolArray,
) -> Iterator[str]:
    """Sentences on what is undefined and on cases that some figures lack."""
    if abnormal.all() or not abnormal.any():
        kind = "abnormal" if abnormal.all() else "normal"
        yield f"AUROC, AP and balanced accuracy need both kinds of cases, but all are {kind}"
    for result in results:
        if lacking := [c for c, v in zip(cases, result.values, strict=True) if np.isnan(v)]:
            yield f"{result.method}, {result.score}: without a value are {named(lacking)}"
        if result.score != CASE_SCORE:
            continue
        unknown = [case for case in cases if case not in scored[result.method].flags]
        if len(unknown) == len(cases):
            yield (
                f"{result.method}: no sensitivity, specificity and accuracy, as its table has no "
                "case_percentile: train it with held-out scans, or give --threshold_from"
            )
        elif unknown:
            yield f"{result.method}: whether they are flagged is not known of {named(unknown)}"
