"""Labels of whole cases, and the scores that a prediction gave them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from screener_nnu.case_score import CASE_TABLE, IMAGE, VECTOR, flag
from screener_nnu.csv_files import read_csv
from screener_nnu.errors import ScreenerError
from screener_nnu.files import refuse_missing

CASE_SCORE = "case_score"
_SCORES = (CASE_SCORE, "peak_score", "mean_score", "smoothed_score")


@dataclass(frozen=True)
class LabelledCases:
    """A table of cases with a label each.

    Attributes:
        labels: 0 (normal) or 1 (abnormal), by case.
        groups: what belongs together, such as a patient, by case; cases without a group lack.
        left_out: reason for each case of the table that is not to be evaluated.
    """

    labels: dict[str, int]
    groups: dict[str, str]
    left_out: dict[str, str]


@dataclass(frozen=True)
class ScoredCases:
    """Scores of whole cases by one method.

    Attributes:
        scores: by name of the score and case; higher is meant to be more anomalous.
        flags: whether a case is flagged, where it is known.
        problems: why a case has no score.
    """

    scores: dict[str, dict[str, float]]
    flags: dict[str, bool] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> set[str]:
        """All cases that the method was given, those without a score as well."""
        return set(self.problems).union(*self.scores.values())


def read_case_labels(path: Path, *, training: bool = False) -> LabelledCases:
    """Reads a table with columns `case` and `label`, and `group` and `split` where it has them.

    Args:
        path: CSV file, such as `pictures.csv` of a raw data set.
        training: whether rows whose split is `train` count as well.

    Raises:
        ScreenerError: it lacks a column, a label is not 0, 1 or empty, a case stands twice, or no
            case has a label.
    """
    labels: dict[str, int] = {}
    groups: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for row in _read_rows(path, ("case", "label")):
        case, label = row["case"], row["label"]
        if case in labels or case in left_out:
            raise ScreenerError(f"{path}: {case} stands twice; keep one row of it")
        if not training and row.get("split", "").lower() == "train":
            left_out[case] = "of the training split"
        elif not label:
            left_out[case] = "without a label"
        elif label in ("0", "1"):
            labels[case] = int(label)
            if row.get("group"):
                groups[case] = row["group"]
        else:
            raise ScreenerError(
                f"{path}: the label of {case} is {label}; give 0 (normal), 1 (abnormal) or nothing"
            )
    if not labels:
        raise ScreenerError(f"{path}: no case to evaluate has a label; write 0 or 1 in that column")
    return LabelledCases(labels, groups, left_out)


def read_case_scores(folder: Path) -> ScoredCases:
    """Reads the scores in `cases.csv` of a folder of maps.

    A case is flagged as its column `flag` says, else from the 95th percentile of held-out normal
    cases on, which is the same.

    Raises:
        ScreenerError: there is no such table, or a cell that should be a number is none.
    """
    path = folder / CASE_TABLE
    rows = _read_rows(path, ("case", CASE_SCORE))
    names = [name for name in rows[0] if name in _SCORES or name.startswith((VECTOR, IMAGE))]
    scores: dict[str, dict[str, float]] = {name: {} for name in names}
    flags: dict[str, bool] = {}
    problems: dict[str, str] = {}
    for row in rows:
        case = row["case"]
        for name in names:
            value = _number(path, row, name)
            if value is not None:
                scores[name][case] = value
        if case not in scores[CASE_SCORE]:
            problems[case] = row.get("problem") or "no score in the table"
        flagged = _number(path, row, "flag")
        if flagged is None:
            flagged = flag(_number(path, row, "case_percentile"))
        if flagged is not None:
            flags[case] = bool(flagged)
    return ScoredCases(scores, flags, problems)


@dataclass(frozen=True)
class MatchedCases:
    """Cases on which all methods are judged, and what becomes of all others.

    Attributes:
        cases: labelled ones with a case score by every method, in order of name.
        left_out: reason for each other case of the table of labels.
        unlabelled: scored cases that this table does not have, in order of name.
    """

    cases: list[str]
    left_out: dict[str, str]
    unlabelled: list[str]


def match_cases(labelled: LabelledCases, methods: Mapping[str, ScoredCases]) -> MatchedCases:
    """Finds the labelled cases to which every method gave a case score."""
    left_out = dict(labelled.left_out)
    for case in labelled.labels:
        for method, scored in methods.items():
            if case in scored.problems:
                left_out[case] = f"no case score by '{method}': {scored.problems[case]}"
            elif case not in scored.scores[CASE_SCORE]:
                left_out[case] = f"no prediction by '{method}'"
    seen = set().union(*(scored.cases for scored in methods.values()))
    unlabelled = sorted(seen - set(labelled.labels) - set(left_out))
    return MatchedCases(sorted(set(labelled.labels) - set(left_out)), left_out, unlabelled)


def _read_rows(path: Path, needed: tuple[str, ...]) -> list[dict[str, str]]:
    """Rows of a table that has some columns."""
    refuse_missing(path)
    columns, lines = read_csv(path)
    rows = [line for line in lines if any(line.values())]
    if missing := [name for name in needed if name not in columns]:
        raise ScreenerError(
            f"{path} has no column {' and no column '.join(missing)}; its columns are "
            f"{', '.join(columns) or 'none'}"
        )
    if not rows:
        raise ScreenerError(f"{path} holds no case")
    return rows


def _number(path: Path, row: Mapping[str, str], name: str) -> float | None:
    """A cell as a number, None where it is empty or not finite."""
    text = row.get(name, "")
    try:
        value = float(text) if text else math.nan
    except ValueError as error:
        raise ScreenerError(
            f"{path}: {name} of {row['case']} is {text}, which is no number; predict again"
        ) from error
    return value if math.isfinite(value) else None
