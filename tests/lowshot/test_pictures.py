"""Pictures in the benchmark: labels of PNG, maps of TIFF, discs for balls, distances in pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.finetuning.image_kind import ImageKind
from screener_nnu.lowshot import maps as maps_module
from screener_nnu.lowshot.design import Design, LowShotRun, plan_runs
from screener_nnu.lowshot.floor import central_balls, map_thresholds
from screener_nnu.lowshot.maps import predicted_maps
from screener_nnu.lowshot.measure import measure
from screener_nnu.lowshot.report import markdown
from screener_nnu.lowshot.summary import summarise
from screener_nnu.preprocessing.pictures import write_picture

DESCRIPTION = {"labels": {"background": 0, "lesion": 1}, "file_ending": ".png"}
PICTURES = ImageKind("picture")


def disc(radius: float, shift: int = 0) -> np.ndarray:
    rows, columns = np.indices((31, 41))
    inside = (rows - 15) ** 2 + (columns - 20 - shift) ** 2 <= radius**2
    return np.asarray(inside, np.uint8)


@pytest.fixture
def runs(make_runs: Callable[..., list[LowShotRun]]) -> list[LowShotRun]:
    return make_runs(Design((2,), 3, 1, 1, 1))


@pytest.fixture
def dataset(runs: list[LowShotRun], tmp_path: Path) -> LabelledDataset:
    """Discs of 6 pixels in the middle of every picture."""
    cases = sorted({case for run in runs for part in run.cases.values() for case in part})
    labels = {case: tmp_path / f"{case}.png" for case in cases}
    for path in labels.values():
        write_picture(disc(6), path)
    return LabelledDataset("Dataset502_Lesions", DESCRIPTION, {}, labels, PICTURES)


def test_the_ball_is_a_disc_of_as_many_pixels(
    dataset: LabelledDataset, runs: list[LowShotRun]
) -> None:
    for ball in central_balls(dataset, runs).values():
        assert ball.choice == 6.0 and set(ball.dice.values()) == {1.0}


def test_thresholds_on_maps_of_tiff(
    dataset: LabelledDataset, runs: list[LowShotRun], tmp_path: Path
) -> None:
    maps = {case: tmp_path / f"{case}.tif" for case in dataset.labels}
    for path in maps.values():
        tifffile.imwrite(path, disc(6).astype(np.float32) * 3 - 1)
    problems: dict[str, str] = {}
    floors = map_thresholds(dataset, runs, maps, problems)
    assert not problems and set(floors) == {run.setting for run in runs}
    assert all(set(floor.dice.values()) == {1.0} for floor in floors.values())


def test_maps_are_looked_for_where_pictures_have_them(
    dataset: LabelledDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {case: Path(f"{case}_0000.png") for case in dataset.labels}
    pictures = LabelledDataset(dataset.name, DESCRIPTION, images, dataset.labels, PICTURES)
    monkeypatch.setattr(maps_module, "trained_identity", lambda model: "0123456789")
    monkeypatch.setattr(maps_module, "load_predictor", lambda *words: None)
    monkeypatch.setattr(maps_module, "predict_files", lambda *words, **options: {})
    found, _ = predicted_maps(pictures, "Dataset901_Tiny", "ScreenerPlans", "student", "cpu")
    assert {path.name for path in found.values()} == {f"{case}.tif" for case in images}


def test_surface_dice_counts_pixels(dataset: LabelledDataset, runs: list[LowShotRun]) -> None:
    run = runs[0]
    references, predictions = dataset.folder / "gt_segmentations", run.training.summary_file.parent
    for folder in (references, predictions):
        folder.mkdir(parents=True)
    for place, case in enumerate(run.cases["val"]):
        write_picture(disc(6), references / f"{case}.png")
        write_picture(disc(6, shift=place), predictions / f"{case}.png")
    compute_metrics_on_folder(
        str(references), str(predictions), str(run.training.summary_file), NaturalImage2DIO(),
        ".png", [1], None, num_processes=1,
    )  # fmt: skip
    records = measure(run, dataset, 2.0)
    assert [record.nsd for record in records[:3]] == [1.0, 1.0, 1.0]
    assert records[0].dice == 1.0 and records[3].nsd < 1.0


def test_the_report_says_pixels(runs: list[LowShotRun], made_up: Any) -> None:
    settings: dict[str, Any] = {"dataset": "Dataset502_Lesions", "source": "Dataset901_Trunk"}
    settings |= {"plans": "ScreenerPlans", "folds": 3, "seeds": 1, "epochs": 1, "iterations": 1}
    settings |= {"finished": len(runs), "nsd_tolerance_mm": 2.0, "unit": "pixels", "notes": []}
    summary = summarise(runs, made_up(runs), {}, {run.name: np.zeros(1) for run in runs})
    assert "## Normalised surface Dice, 2 pixels" in markdown(summary, settings, len(runs), {})


def test_trainings_are_those_of_the_configuration(
    runs: list[LowShotRun], preprocessed: Path
) -> None:
    from screener_nnu.finetuning.starts import Start

    names = {Start("scratch"): ["Screener901_scratch_1x1_seed0"]}
    cases = sorted({case for run in runs for part in run.cases.values() for case in part})
    design = Design((2,), 3, 1, 1, 1)
    made = plan_runs("Dataset502_Lesions", preprocessed, cases, design, names, "2d")
    folders = {run.training.folder.parent.name for run in made}
    assert folders == {"nnUNetTrainer__Screener901_scratch_1x1_seed0__2d"}
