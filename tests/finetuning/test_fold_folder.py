"""--restart removes what nnU-Net and we wrote, and nothing of anybody else."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.fold_folder import RECORD_FILE, clear_fold, read_record

WRITTEN = (
    "checkpoint_final.pth",
    "checkpoint_best.pth",
    "checkpoint_latest.pth",
    "checkpoint_latest.pth.tmp",
    ".checkpoint_best.pth.123.tmp",
    "training_log_2026_1_2_03_04_05.txt",
    "progress.png",
    "debug.json",
    "screener_learning_curve.json",
    "screener_nsd_2mm.json",
    "validation/summary.json",
    "validation/case_0.nii.gz",
    "validation/case.with.dots.nii.gz",
)


@pytest.fixture
def fold(tmp_path: Path) -> Path:
    """A finished training of ours."""
    folder = tmp_path / "fold_0"
    for name in WRITTEN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / RECORD_FILE).write_text(json.dumps({"fold": 0}))
    return folder


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """The labels that nnU-Net compares with; case_1 has no prediction."""
    folder = tmp_path / "gt_segmentations"
    folder.mkdir()
    for case in ("case_0", "case_1", "case.with.dots"):
        (folder / f"{case}.nii.gz").touch()
    return folder


def test_a_training_of_ours_is_removed_whole(fold: Path, references: Path) -> None:
    assert read_record(fold) == {"fold": 0}
    clear_fold(fold, references)
    assert not list(fold.iterdir())
    assert len(list(references.iterdir())) == 3


def test_files_of_somebody_else_stay_and_are_named(
    fold: Path, references: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = ("notes.txt", "checkpoint_mine.pth", "validation/readers.csv", "wandb/run.wandb")
    for name in theirs:
        (fold / name).parent.mkdir(exist_ok=True)
        (fold / name).write_text("mine")
    with caplog.at_level(logging.INFO):
        clear_fold(fold, references)
    left = sorted(str(p.relative_to(fold)) for p in fold.rglob("*") if p.is_file())
    assert left == sorted(theirs)
    assert all(name in caplog.text for name in theirs)
    assert f"removed {len(WRITTEN) + 1} files" in caplog.text


def test_predictions_of_somebody_else_would_be_evaluated(fold: Path, references: Path) -> None:
    corrected = fold / "validation" / "case_0_corrected.nii.gz"
    corrected.touch()
    with pytest.raises(ScreenerError, match="case_0_corrected.nii.gz.*: move them away"):
        clear_fold(fold, references)
    assert all((fold / name).exists() for name in WRITTEN) and corrected.exists()


@pytest.mark.parametrize("name", ["checkpoint_best.pth", "training_log_2026_1_2_03_04_05.txt"])
def test_a_stock_training_is_left_alone(fold: Path, references: Path, name: str) -> None:
    (fold / RECORD_FILE).unlink()
    for other in set(WRITTEN) - {name}:
        (fold / other).unlink()
    with pytest.raises(ScreenerError, match=f"{fold} holds a training without {RECORD_FILE}"):
        clear_fold(fold, references)
    assert (fold / name).exists()


def test_a_damaged_record_says_nothing(fold: Path, references: Path) -> None:
    (fold / RECORD_FILE).write_text('{"fold": ')
    with pytest.raises(ScreenerError, match=f"{fold / RECORD_FILE} cannot be read"):
        clear_fold(fold, references)
    assert all((fold / name).exists() for name in WRITTEN)


def test_a_folder_without_a_training_is_nobodys(tmp_path: Path, references: Path) -> None:
    assert read_record(tmp_path / "absent") == {}
    notes = tmp_path / "fold_1" / "notes.txt"
    notes.parent.mkdir()
    notes.touch()
    clear_fold(notes.parent, references)
    assert read_record(notes.parent) == {} and notes.exists()
