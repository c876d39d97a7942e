"""The results of one fold: whose training lies there, and which files --restart may remove."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError, some

logger = logging.getLogger(__name__)

RECORD_FILE = "screener_finetune.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
VALIDATION = "validation"
SUMMARY = "summary.json"
#: What nnU-Net writes into the folder of a fold, beside the predictions in `validation`.
_TRAINING_FILES = (
    *CHECKPOINTS,
    "training_log_*.txt",
    "progress.png",
    "debug.json",
    "network_architecture.pdf",
    f"{VALIDATION}/{SUMMARY}",
)
#: What we write there; the temporary files are those of a killed run.
_OUR_FILES = (
    RECORD_FILE,
    "screener_learning_curve.json",
    "screener_nsd_*mm.json",
    "checkpoint_*.pth.tmp",
    ".checkpoint_*.pth.*.tmp",
    ".screener_*.json.*.tmp",
)


def read_record(folder: Path) -> dict[str, Any]:
    """What screener_finetune has recorded of the training in a folder; empty without any training.

    Raises:
        ScreenerError: somebody else has trained there, or the record is damaged.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        if any(_matching(folder, _TRAINING_FILES)):
            raise ScreenerError(
                f"{folder} holds a training without {RECORD_FILE}, which screener_finetune did not "
                "begin and leaves alone: move it away, or train another fold"
            )
        return {}
    try:
        record = json.loads(path.read_text())
        if not isinstance(record, dict):
            raise ValueError("no object")
    except ValueError as error:
        raise ScreenerError(
            f"{path} cannot be read ({error}), so that nobody knows what was trained there: move "
            f"{folder} away, and train it anew"
        ) from error
    return record


def clear_fold(folder: Path, references: Path) -> None:
    """Removes a training of ours; what nnU-Net and we have not written stays and is named.

    Args:
        folder: of the fold.
        references: nnU-Net's `gt_segmentations`, whose files are named as the predictions.

    Raises:
        ScreenerError: the training is not ours, or files of somebody else lie among the
            predictions, where nnU-Net would evaluate them.
    """
    if not read_record(folder):
        return
    predictions, others = _sorted_validation(folder / VALIDATION, references)
    if others:
        raise ScreenerError(
            f"{folder / VALIDATION} holds {some([path.name for path in others])}, which are no "
            "predictions of nnU-Net, but would be evaluated with them: move them away"
        )
    ours = [*_matching(folder, (*_TRAINING_FILES, *_OUR_FILES)), *predictions]
    # The record last: killed before, the rest is still known as ours.
    for path in sorted(ours, key=lambda path: path.name == RECORD_FILE):
        path.unlink()
    if (folder / VALIDATION).is_dir() and not any((folder / VALIDATION).iterdir()):
        (folder / VALIDATION).rmdir()
    left = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = f"; not ours, and left there: {some(left)}" if left else ""
    logger.info("--restart: removed %d files of a training in %s%s", len(ours), folder, kept)


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    return (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())


def _sorted_validation(folder: Path, references: Path) -> tuple[list[Path], list[Path]]:
    """Predictions of a validation, and other files that nnU-Net would take for some."""
    known = {path.name for path in references.glob("*")}
    # Endings may have several dots, and so may names of cases.
    endings = tuple({name[name.index(".") :] for name in known if "." in name})
    files = [path for path in folder.glob("*") if path.is_file()]
    predictions = [path for path in files if path.name in known]
    others = [p for p in files if p.name not in known and endings and p.name.endswith(endings)]
    return predictions, others
