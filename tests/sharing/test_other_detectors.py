"""Model files of detectors that are no students: all of their stages, and the same maps."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from screener_nnu.commands.export_model import main as export
from screener_nnu.commands.install_model import main as install
from screener_nnu.commands.predict import main as predict
from screener_nnu.detectors import DETECTORS, ModelRef

STAGES = {
    "teacher": {"ScreenerPlans": ["descriptor", "condition", "density"]},
    "padim": {"ScreenerPlans": ["descriptor"], "ScreenerPlans_padim": ["density"]},
    "padim_pretext": {"ScreenerPlans": ["pretext"], "ScreenerPlans_padim_pretext": ["density"]},
    "msde": {"ScreenerPlans": ["descriptor"], "ScreenerPlans_msde": ["density"]},
    "knn_levels": {"ScreenerPlans": ["descriptor"], "ScreenerPlans_knn_levels": ["density"]},
    "pca_untrained": {"ScreenerPlans_pca_untrained": ["density"]},
    "igd_pretext": {"ScreenerPlans_igd_pretext": ["igd"]},
}

LONG = {"igd_pretext", "padim_pretext", "knn_levels"}


def map_of(name: str, scan: Path, folder: Path) -> np.ndarray:
    words = ["-d", "901", "--detector", name, "-i", str(scan), "-o", str(folder)]
    predict([*words, "-device", "cpu", "--threshold", "p99"])
    return sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "phantom_0003.nii.gz")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.long) if n in LONG else n for n in STAGES],
)
def test_a_detector_travels(
    name: str,
    trained: Any,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained.train(name)
    scan = trained.raw / "imagesTr" / "phantom_0003_0000.nii.gz"
    expected = map_of(name, scan, tmp_path / "before")
    path = tmp_path / "model.zip"
    export(["901", "--detector", name, "-o", str(path)])
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        card = archive.read("MODEL_CARD.md").decode()
        description = json.loads(archive.read("model.json"))
    files = [f"{plans}/{stage}.pth" for plans, stages in STAGES[name].items() for stage in stages]
    assert {m for m in members if m.startswith("checkpoints/")} == {
        f"checkpoints/{file}" for file in files
    }
    assert (description["format_version"], description["detector"]) == (2, name)
    assert f"{ModelRef('901', detector=name).command('predict')} -i scans" in card
    assert ("in nats" in card) is (ModelRef("901", detector=name).spec.unit == "nats")
    assert "finetune" not in card and "phantom_0003" not in card
    figures = description["training"][DETECTORS[name].stage]
    assert 0 < figures["trained"] <= 1

    request.getfixturevalue("empty_world")
    capsys.readouterr()
    install([str(path)])
    assert f"next: {ModelRef('901', detector=name).command('predict')}" in capsys.readouterr().out
    np.testing.assert_array_equal(map_of(name, scan, tmp_path / "after"), expected)


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("oracle", [], "no detector 'oracle'; known: student, teacher, padim"),
        ("padim", [], "run\n    screener_train 901 3d_fullres padim"),
        ("teacher", ["--teacher"], "a file of teacher has all of its stages: leave it out"),
    ],
)
def test_what_cannot_be_exported(
    name: str,
    words: list[str],
    message: str,
    trained: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as end:
        export(["901", "--detector", name, *words, "-o", str(tmp_path / "model.zip")])
    assert end.value.code == 1 and message in capsys.readouterr().err
    assert not (tmp_path / "model.zip").exists()
