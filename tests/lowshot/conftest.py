"""A design of two starts on twelve cases, and figures made up for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from screener_nnu.finetuning.starts import Start
from screener_nnu.lowshot.design import Design, LowShotRun, plan_runs
from screener_nnu.lowshot.measure import Record

DATASET = "Dataset502_Lesions"
CASES = tuple(f"case_{i:02d}" for i in range(12))
STARTS = ("scratch", "student")


@pytest.fixture
def preprocessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The preprocessed folder of the dataset, empty."""
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
    folder = tmp_path / "preprocessed" / DATASET
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def make_runs(preprocessed: Path) -> Callable[..., list[LowShotRun]]:
    """Trainings of a design; no weights are read."""

    def make(design: Design, starts: tuple[str, ...] = STARTS) -> list[LowShotRun]:
        names = {
            Start(s): [f"Screener901_{design.plan_suffix(s, n)}" for n in range(design.seeds)]
            for s in starts
        }
        return plan_runs(DATASET, preprocessed, CASES, design, names)

    return make


@pytest.fixture
def made_up() -> Callable[..., list[Record]]:
    """Figures of every validation case; the student is better by `gain`, give or take."""

    def make(runs: list[LowShotRun], gain: float = 0.1) -> list[Record]:
        records = []
        for run in runs:
            for case in run.cases["val"]:
                place = CASES.index(case)
                rng = np.random.default_rng([place, run.setting.seed, len(run.start)])
                better = gain if run.start == "student" else 0.0
                dice = 0.2 + 0.04 * place + better + rng.normal(0, 0.03)
                dice = float(np.clip(dice + 0.01 * run.setting.num_cases, 0, 1))
                records.append(Record(run.start, run.setting, case, dice, min(1.0, dice * 1.2)))
        return records

    return make


@pytest.fixture
def splits(preprocessed: Path) -> Callable[[], list]:
    """Reads `splits_final.json`."""
    return lambda: json.loads((preprocessed / "splits_final.json").read_text())
