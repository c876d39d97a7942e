from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from screener_nnu.errors import BusyError, ScreenerError
from screener_nnu.files import OutputError
from screener_nnu.finetuning.training import RECORD_FILE, FineTuningRun, fine_tune
from screener_nnu.lowshot.design import Design, LowShotRun
from screener_nnu.lowshot.train import changed_runs, train_runs

Runs = Callable[..., list[LowShotRun]]


def finish(run: FineTuningRun) -> None:
    run.summary_file.parent.mkdir(parents=True, exist_ok=True)
    run.summary_file.write_text(json.dumps({"foreground_mean": {"Dice": 0.5}}))
    (run.folder / "checkpoint_final.pth").touch()


def test_failures_are_named_and_the_rest_goes_on(
    make_runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    runs = make_runs(Design((2,), 3, 1, 4, 5))
    trained = []

    def train(run: FineTuningRun, device: str, restart: bool) -> None:
        trained.append(run)
        if run == runs[1].training:
            raise RuntimeError("out of memory\nat some address")
        if run == runs[2].training:
            raise ScreenerError("another budget")

    with caplog.at_level(logging.INFO):
        failures = train_runs(runs, "cpu", train=train)
    assert trained == [run.training for run in runs]
    assert failures == {
        "student, 2 cases, fold 0, seed 0": "RuntimeError: out of memory",
        "scratch, 2 cases, fold 1, seed 0": "another budget",
    }
    assert "6/6: student, 2 cases, fold 2, seed 0" in caplog.text
    assert all(f"{name} failed" in caplog.text for name in failures)


def test_an_interrupt_is_not_a_failure(make_runs: Runs) -> None:
    def train(run: FineTuningRun, device: str, restart: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_runs(make_runs(Design((2,), 3, 1, 4, 5)), "cpu", train=train)


def test_what_another_process_trains_is_waited_for(
    make_runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again when the others are done, and never deleted then."""
    monkeypatch.setattr("screener_nnu.lowshot.train._WAIT", 0.0)
    runs = make_runs(Design((2,), 2, 1, 4, 5))
    busy = [runs[0].training, runs[0].training, runs[2].training]
    trained = []

    def train(run: FineTuningRun, device: str, restart: bool) -> None:
        if run in busy:
            busy.remove(run)
            raise BusyError("another process is training it")
        trained.append((run, restart))

    assert train_runs(runs, "cpu", restart=True, train=train) == {}
    at_once = [(runs[n].training, True) for n in (1, 3)]
    assert trained == [*at_once, (runs[2].training, False), (runs[0].training, False)]


def test_a_full_disk_ends_it(make_runs: Runs, tmp_path: Path) -> None:
    def train(run: FineTuningRun, device: str, restart: bool) -> None:
        trained.append(run)
        raise OutputError(tmp_path, "no space left", "free some")

    trained: list[FineTuningRun] = []
    with pytest.raises(OutputError):
        train_runs(make_runs(Design((2,), 2, 1, 4, 5)), "cpu", train=train)
    assert len(trained) == 1


def test_finished_trainings_are_not_repeated_and_begun_ones_go_on(
    make_runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = make_runs(Design((2,), 2, 1, 4, 5))
    begun = []

    class Trainer:
        def __init__(self, run: FineTuningRun, device: str, resume: bool) -> None:
            self.run = run
            begun.append((run, resume))

        def run_training(self) -> None:
            if len(begun) == 2:
                (self.run.folder / "checkpoint_latest.pth").touch()
                raise RuntimeError("killed")

        def perform_actual_validation(self) -> None:
            finish(self.run)

    monkeypatch.setattr("screener_nnu.finetuning.training.make_trainer", Trainer)
    monkeypatch.setattr("screener_nnu.finetuning.training._use_cores", lambda device: None)
    assert list(train_runs(runs, "cpu", train=fine_tune)) == [runs[1].name]
    assert begun == [(run.training, False) for run in runs]
    assert train_runs(runs, "cpu", train=fine_tune) == {}
    assert begun[4:] == [(runs[1].training, True)]
    assert train_runs(runs, "cpu", train=fine_tune) == {} and len(begun) == 5


def test_finished_trainings_of_other_settings_do_not_count(make_runs: Runs) -> None:
    runs = make_runs(Design((2,), 2, 1, 4, 5))
    for run in runs[:3]:
        finish(run.training)
        record = run.training.folder / RECORD_FILE
        record.write_text(json.dumps({**vars(run.training), "weights": None}))
    assert changed_runs(runs) == {}
    record.write_text(json.dumps({**vars(runs[2].training), "seed": 1}))
    (name, reason), *others = changed_runs(runs).items()
    assert name == runs[2].name and "seed: 1, now" in reason and not others
