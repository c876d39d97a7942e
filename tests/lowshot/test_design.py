from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.splits import chosen_folds, cross_validation, default_splits
from screener_nnu.lowshot.design import Design, LowShotRun, Setting

FOLDER = Path("/data")
CASES = [f"case_{i:02d}" for i in range(12)]
Runs = Callable[..., list[LowShotRun]]


def test_every_start_has_the_same_cases_budget_and_seed(make_runs: Runs) -> None:
    runs = make_runs(Design((2, 4), 3, 2, 30, 50))
    assert len(runs) == 2 * 3 * 2 * 2
    by_setting: dict[Setting, list[LowShotRun]] = {}
    for run in runs:
        by_setting.setdefault(run.setting, []).append(run)
    for scratch, student in by_setting.values():
        assert (scratch.start, student.start) == ("scratch", "student")
        assert scratch.cases == student.cases
        for part in ("fold", "epochs", "iterations", "seed"):
            assert getattr(scratch.training, part) == getattr(student.training, part)


def test_sets_are_nested_and_validation_is_that_of_the_fold(make_runs: Runs) -> None:
    runs = make_runs(Design((2, 4, 6), 3, 2, 1, 1))
    folds = cross_validation(CASES, 3)
    cases = {run.setting: run.cases for run in runs}
    for setting, split in cases.items():
        fold = folds[setting.fold]
        assert split["val"] == fold["val"]
        assert len(split["train"]) == setting.num_cases
        assert set(split["train"]) <= set(fold["train"])
        larger = cases.get(Setting(setting.num_cases + 2, setting.fold, setting.seed))
        assert larger is None or set(split["train"]) < set(larger["train"])
    assert cases[Setting(4, 0, 0)]["train"] != cases[Setting(4, 0, 1)]["train"]


def test_no_two_trainings_share_a_folder(make_runs: Runs) -> None:
    # Eight cases are all that a fold trains on, so that both seeds draw the same ones.
    runs = make_runs(Design((4, 8), 3, 2, 30, 50)) + make_runs(Design((4, 8), 3, 2, 2, 5))
    assert len({run.training.folder for run in runs}) == len(runs)
    folder = str(runs[0].training.folder)
    assert "nnUNetTrainer__Screener901_scratch_30x50_seed0__3d_fullres" in folder


def test_training_seed_depends_on_seed_and_fold_only() -> None:
    seeds = {Setting(n, fold, seed).torch_seed for n in (5, 10) for fold in (0, 1) for seed in (0,)}
    assert len(seeds) == 2
    assert Setting(5, 0, 0).torch_seed != Setting(5, 0, 1).torch_seed


def test_existing_folds_are_kept_and_used_again(
    make_runs: Runs, preprocessed: Path, splits: Callable[[], list]
) -> None:
    before = [*default_splits(CASES), {"train": CASES[:1], "val": CASES[5:6]}]
    (preprocessed / "splits_final.json").write_text(json.dumps(before))
    design = Design((3, 9), 4, 1, 1, 1)
    runs = make_runs(design)
    after = splits()
    # Nine cases are all that a fold trains on; two of nnU-Net's five folds have the same cases.
    same = [fold for fold in cross_validation(CASES, 4) if fold in before]
    assert after[:6] == before and len(same) == 2 and len(after) == 6 + 4 + 4 - len(same)
    assert all(
        sorted(after[run.training.fold][part]) == sorted(run.cases[part])
        for run in runs
        for part in ("train", "val")
    )
    assert [run.training.fold for run in make_runs(design)] == [run.training.fold for run in runs]
    assert splits() == after


def test_five_folds_are_those_of_nnunet(make_runs: Runs, splits: Callable[[], list]) -> None:
    make_runs(Design((2,), 5, 1, 1, 1))
    assert splits()[:5] == default_splits(CASES)
    assert [fold["val"] for fold in splits()[5:]] == [fold["val"] for fold in splits()[:5]]


def test_a_split_of_ones_own_is_used_when_its_folds_are_that_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    patients = [CASES[0:6], CASES[6:9], CASES[9:12]]
    own = [
        {"train": [case for case in CASES if case not in group], "val": list(group)}
        for group in patients
    ]
    extra = {"train": CASES[:2], "val": CASES[6:9]}
    assert chosen_folds([*own, extra], CASES, 3, FOLDER) == own
    with caplog.at_level(logging.WARNING):
        assert chosen_folds(own, CASES, 4, FOLDER) == cross_validation(CASES, 4)
    assert "split of your own with 3 folds" in caplog.text
    caplog.clear()
    chosen_folds(default_splits(CASES), CASES, 4, FOLDER)
    assert not caplog.text


def test_requests_that_cannot_be_met(make_runs: Runs) -> None:
    with pytest.raises(ScreenerError, match="fold 0 of 4 trains on 9 cases"):
        make_runs(Design((5, 10), 4, 1, 1, 1))
    with pytest.raises(ScreenerError, match="ask for 2 to 12"):
        make_runs(Design((2,), 13, 1, 1, 1))
    with pytest.raises(ScreenerError, match="at least 2"):
        Design((2,), 1, 1, 1, 1)
    with pytest.raises(ScreenerError, match="num_cases"):
        Design((0, 2), 3, 1, 1, 1)


def test_a_request_that_cannot_be_met_writes_nothing(make_runs: Runs, preprocessed: Path) -> None:
    with pytest.raises(ScreenerError):
        make_runs(Design((10,), 4, 1, 1, 1))
    assert not list(preprocessed.iterdir())
