"""What killed runs were writing into folders of reports goes with the next start; nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from screener_nnu.ablation.report import ablation_files, own_report
from screener_nnu.evaluation.report import own_evaluation
from screener_nnu.lowshot.report import _take_over

REPORTS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "evaluation": (
        own_evaluation,
        ["cases.csv", "summary.json", "bins.npz", "histograms/teacher/case_1.npz"],
    ),
    "ablation": (
        lambda folder: own_report(folder, ablation_files(folder)),
        ["ablation.md", "counts/teacher.npz", "anomalies/case_1.npz"],
    ),
    "lowshot": (_take_over, ["lowshot.md", "lowshot.png"]),
}


@pytest.mark.parametrize("kind", list(REPORTS))
def test_old_halves_of_a_report_are_removed(kind: str, tmp_path: Path) -> None:
    """Young ones may be those of a neighbour; others are somebody's."""
    own, names = REPORTS[kind]
    own(tmp_path)  # a folder that is new holds none
    halves = []
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        halves.append(path.with_name(f".{path.name}.30406.tmp"))
    others = [tmp_path / name for name in (".notes.txt.1.tmp", "mine.tmp", f".{names[0]}.tmp")]
    for path in (*halves, *others):
        path.write_bytes(b"half")
        os.utime(path, (0, 0))
    young = tmp_path / f".{names[0]}.30407.tmp"
    young.write_bytes(b"half")
    own(tmp_path)
    assert [path.name for path in halves if path.exists()] == []
    assert young.exists() and all(path.exists() for path in others)
