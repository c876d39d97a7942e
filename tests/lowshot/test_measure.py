from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.lowshot.design import Design, LowShotRun
from screener_nnu.lowshot.measure import measure
from screener_nnu.lowshot.surface import normalised_surface_dice

SPACING = (2.5, 0.9, 1.2)
SHAPE = (7, 12, 10)
LABELS: dict[str, Any] = {"background": 0, "liver": 1, "lesion": 2, "ignore": 3}


def write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(values.astype(np.uint8))
    image.SetSpacing(SPACING[::-1])
    SimpleITK.WriteImage(image, str(path))


@pytest.fixture
def finished(make_runs: Callable[..., list[LowShotRun]]) -> tuple[LowShotRun, LabelledDataset]:
    """A training whose predictions stock nnU-Net has measured; the third case is empty."""
    run = make_runs(Design((2,), 4, 1, 1, 1))[0]
    dataset = LabelledDataset(
        run.training.dataset, {"labels": LABELS, "file_ending": ".nii.gz"}, {}, {}
    )
    references, predictions = dataset.folder / "gt_segmentations", run.training.summary_file.parent
    for place, case in enumerate(run.cases["val"]):
        reference, prediction = np.zeros((2, *SHAPE), int)
        if place < 2:
            reference[1:5, 2:9, 2:8] = 1
            prediction[2:6, 2:8, 1:8] = 1
            reference[0, 0, 0:3] = 3
            prediction[0, 0, 0:2] = 1
        if place < 1:
            reference[2, 4:6, 4:6] = 2
            prediction[3, 4:7, 4:6] = 2
        write(references / f"{case}.nii.gz", reference)
        write(predictions / f"{case}.nii.gz", prediction)
    compute_metrics_on_folder(
        str(references), str(predictions), str(run.training.summary_file), SimpleITKIO(),
        ".nii.gz", [1, 2], 3, num_processes=1,
    )  # fmt: skip
    return run, dataset


def read(path: Path) -> np.ndarray:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def test_figures_are_means_over_the_labels_of_a_case(
    finished: tuple[LowShotRun, LabelledDataset],
) -> None:
    run, dataset = finished
    records = measure(run, dataset, 1.0)
    assert [record.case for record in records] == run.cases["val"]
    for record, labels in zip(records[:2], ([1, 2], [1]), strict=True):
        reference, prediction = (
            read(folder / f"{record.case}.nii.gz")
            for folder in (dataset.folder / "gt_segmentations", run.training.summary_file.parent)
        )
        counted = reference != 3
        pairs = [((prediction == k) & counted, (reference == k) & counted) for k in labels]
        dice = [2 * (p & r).sum() / (p.sum() + r.sum()) for p, r in pairs]
        surface = [normalised_surface_dice(p, r, SPACING, 1.0) for p, r in pairs]
        assert record.dice == pytest.approx(np.mean(dice))
        assert record.nsd == pytest.approx(np.mean(surface)) and 0 < record.nsd < 1
    assert math.isnan(records[2].dice) and math.isnan(records[2].nsd)


def test_surface_dice_is_kept_by_tolerance_until_validation_is_done_again(
    finished: tuple[LowShotRun, LabelledDataset],
) -> None:
    run, dataset = finished
    first, wider = measure(run, dataset, 1.0), measure(run, dataset, 3.0)
    assert wider[0].nsd > first[0].nsd
    case = run.cases["val"][0]
    prediction = run.training.summary_file.parent / f"{case}.nii.gz"
    write(prediction, read(dataset.folder / "gt_segmentations" / f"{case}.nii.gz"))
    assert measure(run, dataset, 1.0)[0] == first[0]
    later = os.stat(run.training.folder / "screener_nsd_1mm.json").st_mtime + 5
    os.utime(run.training.summary_file, (later, later))
    assert measure(run, dataset, 1.0)[0].nsd == 1.0


def test_what_cannot_be_measured_is_named(finished: tuple[LowShotRun, LabelledDataset]) -> None:
    run, dataset = finished
    case = run.cases["val"][1]
    prediction = run.training.summary_file.parent / f"{case}.nii.gz"
    write(prediction, np.zeros((2, 3, 4)))
    with pytest.raises(CaseError, match=f"^{case}: .*different shapes"):
        measure(run, dataset, 1.0)
    prediction.unlink()
    with pytest.raises(CaseError, match=case):
        measure(run, dataset, 1.0)
    summary = json.loads(run.training.summary_file.read_text())
    del summary["metric_per_case"][1]
    run.training.summary_file.write_text(json.dumps(summary))
    with pytest.raises(ScreenerError, match=f"lacks {case}"):
        measure(run, dataset, 1.0)
    run.training.summary_file.write_text("{")
    with pytest.raises(ScreenerError, match="delete it"):
        measure(run, dataset, 1.0)
