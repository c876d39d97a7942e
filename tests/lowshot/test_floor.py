from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from screener_nnu.finetuning.ball import central_ball
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.lowshot.design import Design, LowShotRun
from screener_nnu.lowshot.floor import central_balls


def test_every_setting_has_the_ball_of_its_own_training_cases(
    make_runs: Callable[..., list[LowShotRun]], tmp_path: Path
) -> None:
    runs = make_runs(Design((2, 5), 3, 2, 1, 1))
    labels = {}
    grid = np.indices((20, 20, 20)) - 9.5
    for number, case in enumerate(sorted({c for r in runs for p in r.cases.values() for c in p})):
        mask = (grid**2).sum(0) < (2 + number / 2) ** 2
        labels[case] = tmp_path / f"{case}.nii.gz"
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(mask.astype(np.uint8)), labels[case])
    dataset = LabelledDataset("Dataset502_Lesions", {"labels": {"lesion": 1}}, {}, labels)
    balls = central_balls(dataset, runs)
    assert len({ball.radius for ball in balls.values()}) > 1
    for run in runs:
        training, validation = ([labels[c] for c in run.cases[part]] for part in ("train", "val"))
        radius, dice = central_ball(training, validation)
        ball = balls[run.setting]
        assert ball.radius == radius and list(ball.dice) == run.cases["val"]
        assert np.mean(list(ball.dice.values())) == pytest.approx(dice)
