from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.splits import (
    append_folds,
    check_fold,
    chosen_folds,
    default_splits,
    ensure_splits,
    low_shot_fold,
    read_splits,
)

FOLDER = Path("/data")
CASES = [f"case_{i:02d}" for i in range(12)]


def test_default_equals_what_the_stock_trainer_writes() -> None:
    # As in nnUNetTrainer.do_split.
    stock = generate_crossval_split(list(np.sort(CASES)), seed=12345, n_splits=5)
    stock_file = json.loads(json.dumps(stock))
    assert default_splits(CASES[::-1]) == stock_file


@pytest.mark.parametrize(("cases", "folds"), [(2, 2), (4, 4), (5, 5), (9, 5)])
def test_few_cases_make_fewer_folds(cases: int, folds: int) -> None:
    splits = default_splits(CASES[:cases])
    assert len(splits) == folds
    assert sorted(case for fold in splits for case in fold["val"]) == CASES[:cases]
    assert all(not set(fold["train"]) & set(fold["val"]) for fold in splits)


def test_one_case_is_refused() -> None:
    with pytest.raises(ScreenerError, match="-f all"):
        default_splits(CASES[:1])


def test_existing_folds_are_read_and_not_replaced(tmp_path: Path) -> None:
    own = [{"train": ["a", "b"], "val": ["c"]}]
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(own))
    before = path.read_bytes()
    assert ensure_splits(tmp_path, CASES) == own
    assert path.read_bytes() == before


def test_low_shot_fold_is_appended_once(tmp_path: Path) -> None:
    before = ensure_splits(tmp_path, CASES)
    index = low_shot_fold(tmp_path, 1, 3)
    splits = json.loads((tmp_path / "splits_final.json").read_text())
    assert index == 5 and splits[:5] == before and len(splits) == 6
    assert len(splits[5]["train"]) == 3 and set(splits[5]["train"]) <= set(before[1]["train"])
    assert splits[5]["val"] == before[1]["val"]
    assert low_shot_fold(tmp_path, 1, 3) == 5
    assert json.loads((tmp_path / "splits_final.json").read_text()) == splits


def test_draws_of_one_seed_are_nested_and_seeds_differ(tmp_path: Path) -> None:
    ensure_splits(tmp_path, CASES)
    drawn = [
        low_shot_fold(tmp_path, 0, cases, seed) for cases, seed in ((2, 0), (4, 0), (4, 1), (4, 2))
    ]
    splits = json.loads((tmp_path / "splits_final.json").read_text())
    two, four, *others = (set(splits[index]["train"]) for index in drawn)
    assert two < four
    assert any(four != other for other in others)


def test_all_cases_of_the_fold_are_the_fold_itself(tmp_path: Path) -> None:
    splits = ensure_splits(tmp_path, CASES)
    assert low_shot_fold(tmp_path, 2, len(splits[2]["train"])) == 2


def test_more_cases_than_there_are(tmp_path: Path) -> None:
    ensure_splits(tmp_path, CASES)
    with pytest.raises(ScreenerError, match="ask for 1 to"):
        low_shot_fold(tmp_path, 0, 11)


def folds_of(*validated: str, train: str = "abcdefgh") -> list[dict[str, list[str]]]:
    return [{"train": sorted(set(train) - set(val)), "val": list(val)} for val in validated]


def test_a_split_of_ones_own_may_leave_cases_out(caplog: pytest.LogCaptureFixture) -> None:
    """Scans of one patient (`ab`, `cd`, `ef`) stay together; `gh` is kept for a last test."""
    caplog.set_level(logging.INFO)
    own = folds_of("ab", "cd", "ef", train="abcdef")
    low_shot = [{"train": ["c"], "val": ["a", "b"]}]
    assert chosen_folds(own + low_shot, list("abcdefgh"), 3, FOLDER) == own
    assert caplog.messages == ["2 cases are validated on in no fold of splits_final.json"]
    # Another number of folds cannot keep it: that is said.
    assert len(chosen_folds(own, list("abcdefgh"), 4, FOLDER)) == 4
    assert "a split of your own with 3 folds" in caplog.messages[-1]


def test_folds_that_are_no_cross_validation_are_named(caplog: pytest.LogCaptureFixture) -> None:
    repeated = folds_of("abc", "abd", "ace")
    drawn = chosen_folds(repeated, list("abcdefgh"), 4, FOLDER)
    assert sorted(case for fold in drawn for case in fold["val"]) == list("abcdefgh")
    assert "no cross-validation" in caplog.text


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ({"train": list("abcdefgh"), "val": list("abcd")}, "a, b, c, d twice"),
        ({"train": list("efghz"), "val": list("abcd")}, "does not have .z."),
    ],
)
def test_damage_in_a_split_of_ones_own_is_not_passed_over(first: dict, reason: str) -> None:
    """Other folds, drawn in its place, would tear scans of one patient apart."""
    with pytest.raises(ScreenerError, match=f"fold 0 of /data/splits_final.json names .*{reason}"):
        chosen_folds([first, *folds_of("efgh")], list("abcdefgh"), 2, FOLDER)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not valid JSON"),
        ('[{"train": ["a"], ', "not valid JSON"),
        ("\xff", "not valid JSON"),
        ("[]", "must list folds"),
        ("{}", "must list folds"),
        ('[["a"], ["b"]]', "must list folds"),
        ('[{"train": ["a"]}]', "must list folds"),
        ('[{"train": "ab", "val": ["c"]}]', "must list folds"),
        ('[{"train": [1], "val": ["c"]}]', "must list folds"),
    ],
)
def test_damaged_splits_are_named_and_stay(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "splits_final.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ScreenerError, match=f"{path} .*{reason}|{path} {reason}") as caught:
        ensure_splits(tmp_path, CASES)
    assert "correct it, or delete it" in str(caught.value)
    assert path.read_bytes() == text.encode("latin-1")
    for change in (lambda: low_shot_fold(tmp_path, 0, 2), lambda: read_splits(tmp_path)):
        with pytest.raises(ScreenerError):
            change()


@pytest.mark.parametrize(
    ("splits", "fold", "reason"),
    [
        ([{"train": ["a"], "val": ["b"]}], 1, "folds 0 to 0"),
        ([{"train": ["a"], "val": ["b"]}], -1, "folds 0 to 0"),
        ([{"train": ["a"], "val": []}], 0, "'val'"),
        ([{"train": [], "val": ["b"]}], 0, "'train'"),
        ([{"train": ["a", "z"], "val": ["b"]}], 0, "does not have .z."),
        ([{"train": ["a", "b"], "val": ["b"]}], 0, "names b twice"),
        ([{"train": ["a", "a"], "val": ["b"]}], 0, "names a twice"),
    ],
)
def test_bad_folds_are_refused(splits: list, fold: int, reason: str) -> None:
    with pytest.raises(ScreenerError, match=reason):
        check_fold(splits, fold, ["a", "b"], FOLDER)


def test_folds_that_two_runs_add_at_once_are_all_kept(tmp_path: Path) -> None:
    wanted = [{"train": [f"case_{i}"], "val": ["held_out"]} for i in range(24)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda fold: append_folds(tmp_path, [fold])[0], wanted))
    assert sorted(found) == list(range(24))
    assert [read_splits(tmp_path)[number] for number in found] == wanted
