from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from screener_nnu.finetuning.ball import central_ball
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.lowshot.design import Design, LowShotRun
from screener_nnu.lowshot.floor import central_balls, dice_by_threshold, map_thresholds


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
    assert len({ball.choice for ball in balls.values()}) > 1
    for run in runs:
        training, validation = ([labels[c] for c in run.cases[part]] for part in ("train", "val"))
        radius, dice = central_ball(training, validation)
        ball = balls[run.setting]
        assert ball.choice == radius and list(ball.dice) == run.cases["val"]
        assert np.mean(list(ball.dice.values())) == pytest.approx(dice)


def test_dice_of_thresholds_equals_explicit_masks() -> None:
    rng = np.random.default_rng(3)
    score = rng.integers(0, 9, (6, 7, 8)).astype(np.float32)
    mask = rng.random((6, 7, 8)) < 0.2
    thresholds = np.array([-1.0, 0.0, 2.5, 3.0, 8.0, 9.0], np.float32)
    marked = [score >= t for t in thresholds]
    explicit = [2 * (m & mask).sum() / (m.sum() + mask.sum()) for m in marked]
    assert dice_by_threshold(score, mask, thresholds) == pytest.approx(explicit)
    empty = np.zeros_like(mask)
    assert dice_by_threshold(score, empty, thresholds).tolist() == [0.0] * len(thresholds)


def write(path: Path, values: np.ndarray) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(values), str(path))
    return path


@pytest.fixture
def mapped(
    make_runs: Callable[..., list[LowShotRun]], tmp_path: Path
) -> tuple[LabelledDataset, list[LowShotRun], dict[str, Path]]:
    """Maps of 0, 1 and 3; those of 3 are half of the foreground."""
    runs = make_runs(Design((2, 5), 3, 1, 1, 1))
    labels, maps = {}, {}
    for number, case in enumerate(sorted({c for r in runs for p in r.cases.values() for c in p})):
        score = np.random.default_rng(number).integers(0, 2, (8, 9, 10)).astype(np.float32)
        label = np.zeros(score.shape, np.uint8)
        label[2:4, 3:5, 4:6] = 1
        score[2:4, 3:5, 4:5] = 3
        label[0], score[0] = 2, 50  # neither found nor missed
        labels[case] = write(tmp_path / f"{case}.nii.gz", label)
        maps[case] = write(tmp_path / f"{case}_map.nii.gz", score)
    description = {"labels": {"background": 0, "lesion": 1, "ignore": 2}}
    return LabelledDataset("Dataset502_Lesions", description, {}, labels), runs, maps


def test_thresholds_are_those_of_the_training_cases(
    mapped: tuple[LabelledDataset, list[LowShotRun], dict[str, Path]],
) -> None:
    dataset, runs, maps = mapped
    problems: dict[str, str] = {}
    floors = map_thresholds(dataset, runs, maps, problems)
    assert not problems and set(floors) == {run.setting for run in runs}
    for run in runs:
        floor = floors[run.setting]
        assert 1 < floor.choice <= 3
        assert floor.dice == pytest.approx(dict.fromkeys(run.cases["val"], 2 * 4 / (4 + 8)))


def test_threshold_is_not_chosen_on_validation_cases(
    mapped: tuple[LabelledDataset, list[LowShotRun], dict[str, Path]],
) -> None:
    dataset, runs, maps = mapped
    run = runs[0]
    before = map_thresholds(dataset, [run], maps, {})[run.setting]
    moved = np.zeros((8, 9, 10), np.uint8)
    moved[0], moved[5:, :, :] = 2, 1
    for case in run.cases["val"]:  # where no voxel of the map is 3
        write(dataset.labels[case], moved)
    after = map_thresholds(dataset, [run], maps, {})[run.setting]
    assert after.choice == before.choice
    assert after.dice == dict.fromkeys(run.cases["val"], 0.0)


def test_a_map_that_cannot_be_used_is_named_and_left_out(
    mapped: tuple[LabelledDataset, list[LowShotRun], dict[str, Path]],
) -> None:
    dataset, runs, maps = mapped
    lost, torn, wrong = (c for c in runs[0].cases["val"][:3])
    del maps[lost]
    maps[torn].write_bytes(b"torn")
    write(maps[wrong], np.zeros((8, 9, 9), np.float32))
    problems: dict[str, str] = {}
    floors = map_thresholds(dataset, runs, maps, problems)
    assert sorted(problems) == sorted([f"map of {torn}", f"map of {wrong}"])
    assert "cannot be read: delete it" in problems[f"map of {torn}"]
    assert "(8, 9, 9) and label (8, 9, 10)" in problems[f"map of {wrong}"]
    assert not {lost, torn, wrong} & set(floors[runs[0].setting].dice)
    assert map_thresholds(dataset, runs, {}, {}) == {}
