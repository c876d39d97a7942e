"""What the page shows, as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

TOLERATED_LOSS = 0.03
SCREENER = ("student", "teacher")
CONTROL = "untrained"


@dataclass(frozen=True)
class MethodRow:
    """A row of the table; metrics are pooled over all voxels, intervals are 95 % over cases."""

    method: str
    auroc: float
    interval: tuple[float, float]
    auroc_fpr30: float
    average_precision: float
    best_dice: float

    @property
    def is_baseline(self) -> bool:
        """Whether it has neither network nor density."""
        return self.method not in (*SCREENER, CONTROL)


@dataclass(frozen=True)
class Picture:
    """A PNG, what it shows, and its text for those who cannot see it."""

    png: bytes
    caption: str


@dataclass(frozen=True)
class ShownCase:
    """A test scan: a title and its slices, three a row."""

    title: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class TimedStep:
    """A step of the demo and how long it took."""

    title: str
    command: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
        introduction: a paragraph on the data.
        rows: figures of every method.
        lesions: test scans with a lesion.
        cases, curves, roc: pictures; `roc` is missing when there is none.
        fine_tuning: start and mean Dice of the short runs.
        budget: what these runs were given.
        steps: in order.
        environment: variables that the commands need.
        reasons: of the plan's numbers.
        versions: of the software, and the machine.
        colours: colour stops of the maps.
    """

    introduction: str
    rows: Sequence[MethodRow]
    cases: Sequence[ShownCase]
    curves: Sequence[Picture]
    roc: Picture | None
    fine_tuning: dict[str, float]
    budget: str
    steps: Sequence[TimedStep]
    environment: dict[str, str]
    reasons: dict[str, str]
    versions: dict[str, str]
    colours: Sequence[str] = field(default_factory=tuple)

    @property
    def ranked(self) -> list[MethodRow]:
        """Rows by falling AUROC; undefined ones last."""
        return sorted(self.rows, key=lambda row: _or(row.auroc, -1.0), reverse=True)

    @property
    def best_baseline(self) -> MethodRow | None:
        """The strongest of the baselines."""
        return next((row for row in self.ranked if row.is_baseline), None)

    def row(self, method: str) -> MethodRow | None:
        """The row of a method, if it was evaluated."""
        return next((row for row in self.rows if row.method == method), None)

    @property
    def verdict(self) -> str:
        """What came out, in sentences that say so when an aim is missed."""
        teacher, student, best = self.row("teacher"), self.row("student"), self.best_baseline
        sentences = []
        if teacher and best:
            relation = "above" if teacher.auroc > best.auroc else "not above"
            sentences.append(
                f"The teacher (AUROC {teacher.auroc:.3f}) is {relation} the strongest baseline, "
                f"{best.method} ({best.auroc:.3f})."
            )
        if teacher and student:
            sentences.append(_compare_student(teacher.auroc, student.auroc))
        control = self.row(CONTROL)
        if teacher and control:
            gain = teacher.auroc - control.auroc
            sentences.append(
                f"Against the same density on untrained networks ({control.auroc:.3f}), learning "
                f"{'gains' if gain > 0 else 'loses'} {abs(gain):.3f}."
            )
        if teacher:
            sentences.append(_compare_precision(teacher, self.rows))
        return " ".join(sentences)


def _compare_student(teacher: float, student: float) -> str:
    difference = student - teacher
    side = "above" if difference >= 0 else "below"
    kept = "within" if difference >= -TOLERATED_LOSS else "more than"
    text = f"The student ({student:.3f}) lies {abs(difference):.3f} {side} its teacher"
    return f"{text}." if difference >= 0 else f"{text}, {kept} the tolerated {TOLERATED_LOSS}."


def _compare_precision(teacher: MethodRow, rows: Sequence[MethodRow]) -> str:
    """AUROC forgives false alarms where normal voxels abound; average precision does not."""
    best = max(rows, key=lambda row: _or(row.average_precision, -1.0))
    text = f"By average precision the best is {best.method} ({best.average_precision:.3f}"
    if best is teacher:
        return f"{text})."
    return f"{text}; teacher {teacher.average_precision:.3f})."


def _or(value: float, default: float) -> float:
    return value if math.isfinite(value) else default
