from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from screener_nnu.finetuning.training import FineTuningRun
from screener_nnu.lowshot.curves import epochs_to_reach, mean_curve, read_curve, smooth


def test_curve_is_read_from_the_log_of_the_checkpoint(preprocessed: Path) -> None:
    run = FineTuningRun("Dataset502_Lesions", "P", 0, None)
    run.folder.mkdir(parents=True)
    path = run.folder / "checkpoint_final.pth"
    log = {"mean_fg_dice": [np.float32(0.25), np.float64("nan"), 0.5], "ema_fg_dice": [1, 1, 1]}
    torch.save({"network_weights": {}, "logging": log}, path)
    expected = np.array([0.25, np.nan, 0.5])
    np.testing.assert_array_equal(read_curve(run), expected)
    # Large checkpoints are read once.
    time = path.stat().st_mtime_ns
    path.write_bytes(b"torn")
    os.utime(path, ns=(time, time))
    np.testing.assert_array_equal(read_curve(run), expected)


def test_mean_leaves_out_what_is_undefined() -> None:
    nan = np.nan
    found = mean_curve([np.array([0.2, nan, nan]), np.array([0.4, 0.6, nan])])
    np.testing.assert_allclose(found, [0.3, 0.6, nan])


def test_smoothing_looks_back_a_tenth_of_the_training() -> None:
    curve = np.arange(20.0)
    np.testing.assert_allclose(smooth(curve), [0, *(np.arange(19) + 0.5)])
    np.testing.assert_allclose(smooth(curve[:5]), curve[:5])


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 8), (0.2, 6), (-0.1, None)])
def test_epochs_to_reach(shift: float, expected: int | None) -> None:
    scratch = np.arange(1, 9) / 10
    assert epochs_to_reach(scratch + shift + 1e-9 * np.sign(shift), scratch) == expected
    assert epochs_to_reach(np.array([]), scratch) is None
