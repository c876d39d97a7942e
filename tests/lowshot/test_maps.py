from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.dataset import LabelledDataset
from screener_nnu.lowshot.maps import predicted_maps


def labelled(world: Any) -> LabelledDataset:
    """The scans of the tiny set as if they were labelled, and a file that is none."""
    images = {f.name[:-12]: f for f in sorted((world.raw / "imagesTr").glob("*_0000.nii.gz"))[:2]}
    torn = world.root / "torn_0000.nii.gz"
    torn.write_bytes(b"torn")
    return LabelledDataset("Dataset502_Lesions", {"labels": {}}, {**images, "torn": torn}, {})


@pytest.mark.parametrize("model", ["teacher", "student"])
def test_maps_are_made_once_for_each_model(trained: Any, model: str) -> None:
    (trained.root / "preprocessed" / "Dataset502_Lesions").mkdir()
    dataset = labelled(trained)
    maps, lost = predicted_maps(dataset, "Dataset901_Tiny", "ScreenerPlans", model, "cpu")
    assert sorted(maps) == sorted(set(dataset.images) - {"torn"})
    assert list(lost) == ["map of torn"]
    folders = {path.parent for path in maps.values()}
    assert len(folders) == 1 and folders.pop().name.startswith(f"maps_Screener901_{model}_")
    for case, path in maps.items():
        score, image = (
            SimpleITK.ReadImage(str(path)),
            SimpleITK.ReadImage(str(dataset.images[case])),
        )
        assert score.GetSize() == image.GetSize()
        assert np.std(SimpleITK.GetArrayFromImage(score)) > 0
    times = {path: path.stat().st_mtime_ns for path in maps.values()}
    again, _ = predicted_maps(dataset, "Dataset901_Tiny", "ScreenerPlans", model, "cpu")
    assert {path: path.stat().st_mtime_ns for path in again.values()} == times
    predicted_maps(dataset, "Dataset901_Tiny", "ScreenerPlans", model, "cpu", restart=True)
    assert all(path.stat().st_mtime_ns > time for path, time in times.items())


def test_a_model_that_is_not_trained_is_named(world: Any) -> None:
    dataset = LabelledDataset("Dataset502_Lesions", {}, {"case": Path("case.nii.gz")}, {})
    with pytest.raises(ScreenerError, match="density stage of ScreenerPlans has not been trained"):
        predicted_maps(dataset, "Dataset901_Tiny", "ScreenerPlans", "teacher", "cpu")
