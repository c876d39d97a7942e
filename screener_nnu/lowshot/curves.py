"""Learning curves: nnU-Net's pseudo Dice of each epoch, and how soon a start is as good as another.

The pseudo Dice is measured on random validation patches while training. It is noisy and is not the
Dice of the cases; it shows how fast a training learns.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from screener_nnu.finetuning.checkpoint import read_checkpoint
from screener_nnu.finetuning.training import FineTuningRun
from screener_nnu.plans import write_json

_KEPT = "screener_learning_curve.json"
_LOGGED = "mean_fg_dice"


def read_curve(run: FineTuningRun) -> NDArray[np.float64]:
    """Pseudo Dice (epochs,) of a finished training, not averaged over epochs; NaN where undefined.

    It is read from the final checkpoint once, and kept beside it as a small file.

    Raises:
        ScreenerError: the checkpoint is missing or damaged.
    """
    checkpoint, kept = run.folder / "checkpoint_final.pth", run.folder / _KEPT
    if not (kept.is_file() and kept.stat().st_mtime >= checkpoint.stat().st_mtime):
        logged = read_checkpoint(checkpoint).get("logging", {}).get(_LOGGED, [])
        write_json(kept, [None if np.isnan(value) else float(value) for value in logged])
    values = json.loads(kept.read_text())
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def mean_curve(curves: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean (epochs,) of curves of one length; an epoch without a number in any of them is NaN."""
    stacked = np.stack(curves)
    counts = np.isfinite(stacked).sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.nansum(stacked, axis=0) / np.where(counts, counts, np.nan)
    return mean


def smooth(curve: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of each epoch and those before it, a tenth of the training in all."""
    window = max(1, curve.size // 10)
    parts = [curve[max(0, end - window) : end] for end in range(1, curve.size + 1)]
    return np.array([np.nan if np.isnan(part).all() else np.nanmean(part) for part in parts])


def epochs_to_reach(curve: NDArray[np.float64], reference: NDArray[np.float64]) -> int | None:
    """Epochs until a curve is as high as the reference in the end, both smoothed.

    Returns:
        A number of epochs from 1; `None` when the curve never gets there.
    """
    if not curve.size or not reference.size:
        return None
    reached = np.flatnonzero(smooth(curve) >= smooth(reference)[-1])
    return int(reached[0]) + 1 if reached.size else None
