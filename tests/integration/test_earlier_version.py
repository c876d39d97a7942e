"""What an earlier version has made is read: `tests/data/model_of_version_0_1.zip`.

The file holds the plan, the checkpoints of four stages, two calibrations and the histogram of a
tiny chain on phantoms, made by the version that knew a teacher, a student and no other detectors.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from screener_nnu.calibration.store import load_calibration, trained_identity
from screener_nnu.commands.install_model import main as install
from screener_nnu.commands.predict import main as predict
from screener_nnu.commands.train import main as train
from screener_nnu.detectors import STUDENT, TEACHER, ModelRef
from screener_nnu.paths import plan_file
from screener_nnu.plans import read_plan

FILE = Path(__file__).parents[1] / "data" / "model_of_version_0_1.zip"
# Threshold p99, then mean, deviation, median and 99th percentile in the body of the first phantom.
MADE = {
    STUDENT: (6.4769, (5.0013, 0.3881, 4.9548, 6.2092)),
    TEACHER: (7.2755, (4.5976, 0.7219, 4.4154, 8.1153)),
}


@pytest.fixture
def installed(empty_world: Any, made_world: Any) -> Any:
    install([str(FILE)])
    return empty_world


def test_plan_and_checkpoints_are_read(installed: Any) -> None:
    plan = read_plan(plan_file("901", "ScreenerPlans"))
    settings = plan.settings
    assert plan.name == "ScreenerPlans"
    assert (settings.density.kind, settings.density.descriptor) == ("flow", "dense")
    assert settings.density.options == {} and settings.condition.kind == "masking_invariant"
    for name in (STUDENT, TEACHER):
        loaded = ModelRef("901", detector=name).load(torch.device("cpu"))
        assert loaded.statistics["std"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [STUDENT, TEACHER])
def test_maps_and_thresholds_are_those_of_then(
    installed: Any, made_world: Any, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    calibration = load_calibration(ModelRef("901", detector=name))
    assert calibration is not None
    assert calibration.model == trained_identity(ModelRef("901", detector=name))
    scan = sorted((made_world.raw / "imagesTr").iterdir())[0]
    words = ["-d", "901", "--detector", name, "-device", "cpu", "--threshold", "p99"]
    predict([*words, "-i", str(scan), "-o", str(tmp_path)])
    threshold, figures = MADE[name]
    assert f"threshold: {threshold:.4f} nats" in capsys.readouterr().out
    image, mask = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"phantom_0000{end}.nii.gz")))
        for end in ("", "_body")
    )
    values = image[mask > 0]
    found = [values.mean(), values.std(), *np.percentile(values, [50, 99])]
    np.testing.assert_allclose(found, figures, rtol=2e-3, atol=2e-3)


def test_a_finished_stage_is_left_alone(installed: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        train(["901", "3d_fullres", "distillation", "-device", "cpu"])
    assert "is finished" in caplog.text
