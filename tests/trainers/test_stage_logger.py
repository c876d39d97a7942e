"""The plot of a stage, and what of its log survives in a checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from screener_nnu.trainers.stage_logger import StageLogger, training_seconds


def filled(figures: list[float]) -> StageLogger:
    log = StageLogger("top-1 of 1024")
    log.reference = 0.05
    for epoch, figure in enumerate(figures):
        for key, value in (("train_losses", 3 - epoch), ("figures", figure), ("lrs", 1e-3)):
            log.log(key, value, epoch)
    return log


def plot(log: StageLogger, folder: Path) -> np.ndarray:
    folder.mkdir()
    log.plot_progress_png(str(folder))
    return imread(folder / "progress.png")[..., :3]


def test_plot_shows_the_curves(tmp_path: Path) -> None:
    one = plot(filled([0.1, 0.2, 0.4]), tmp_path / "one")
    other = plot(filled([0.1, 0.4, 0.2]), tmp_path / "other")
    assert one.shape == other.shape and min(one.shape[:2]) > 300
    width = one.shape[1] // 3
    for panel in range(3):
        part = one[:, panel * width : (panel + 1) * width]
        coloured = (part.max(-1) - part.min(-1) > 0.2).mean()
        assert coloured > 1e-3
    # Only the panel of the figure has changed.
    changed = np.flatnonzero((one != other).any(axis=(0, 2)))
    assert len(changed) and changed.min() > 0.9 * width and changed.max() < 2.1 * width


@pytest.mark.parametrize(("seconds", "drawn"), [(0, [1, 2]), (1e9, [2])])
def test_short_epochs_are_drawn_at_the_end(
    world: Any, monkeypatch: pytest.MonkeyPatch, seconds: float, drawn: list[int]
) -> None:
    found: list[int] = []

    def plotted(log: StageLogger, folder: str) -> None:
        found.append(len(log.my_fantastic_logging["figures"]))

    monkeypatch.setattr(StageLogger, "plot_progress_png", plotted)
    monkeypatch.setattr("screener_nnu.trainers.base._SECONDS_A_PICTURE", seconds)
    world.train("descriptor")
    assert found == drawn


def test_one_epoch_and_an_unknown_reference_can_be_plotted(tmp_path: Path) -> None:
    log = filled([0.3])
    log.reference = math.nan
    assert plot(log, tmp_path / "plot").std() > 0.01


def test_checkpoint_brings_everything_back() -> None:
    log, fresh = filled([0.1, 0.2]), StageLogger("top-1 of 1024")
    fresh.load_checkpoint(log.get_checkpoint())
    assert fresh.reference == 0.05
    assert fresh.get_value("figures", -1) == 0.2
    fresh.log("figures", 0.7, 2)
    assert fresh.my_fantastic_logging["figures"] == [0.1, 0.2, 0.7]


def test_time_between_the_parts_of_a_run_does_not_count() -> None:
    log = StageLogger("AUROC")
    log.log("preparation_start_timestamps", 10.0, 0)
    log.log("preparation_end_timestamps", 14.0, 0)
    for epoch, start in enumerate((15.0, 500.0)):
        log.log("epoch_start_timestamps", start, epoch)
        log.log("epoch_end_timestamps", start + 3, epoch)
    log.log("epoch_start_timestamps", 900.0, 2)  # killed in it
    values = log.get_checkpoint()["values"]
    assert training_seconds(values) == 4 + 3 + 3
    log.log("finish_start_timestamps", 1000.0, 0)
    log.log("finish_end_timestamps", 1002.0, 0)
    assert training_seconds(log.get_checkpoint()["values"]) == 4 + 3 + 3 + 2
    assert training_seconds({}) is None
    older = {k: v for k, v in values.items() if "epoch" in k}
    assert training_seconds(older) == 3 + 3
