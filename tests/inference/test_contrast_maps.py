"""Maps that are contrasts of scores, where a plan asks for them."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from screener_nnu.calibration.store import model_identity
from screener_nnu.detectors.base import LoadedDetector
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.predict import Predictor, predict_files
from screener_nnu.inference.volume import cells_in_body, score_map
from screener_nnu.scoring.contrast import local_contrast
from screener_nnu.scoring.student import Student

_made = runpy.run_path(str(Path(__file__).with_name("test_predict.py")))
plan, looking_teacher = _made["plan"], _made["looking_teacher"]
SPACING, MEAN, STD = _made["SPACING"], _made["MEAN"], _made["STD"]
CPU = torch.device("cpu")
CONTRAST = "inference.contrast_mm=[6, 20]"
WEIGHT = "inference.contrast_weight=0.6"


@pytest.mark.parametrize("kind", ["student", "flow"])
def test_a_map_is_the_contrast_of_its_scores_in_the_body(kind: str) -> None:
    scorer = Student(_made["Looks"](), MEAN, STD) if kind == "student" else looking_teacher(kind)
    grid, storage = (24, 40, 48), (20, 30, 36)
    generator = np.random.default_rng(0)
    hu = generator.normal(0, 200, grid).astype(np.float32)
    equalised = generator.random(storage).astype(np.float32)
    body = np.zeros(storage, np.uint8)
    body[2:18, 3:26, 4:33] = 1
    raw = score_map(scorer, hu, equalised, plan(SPACING), CPU, body)
    found = score_map(scorer, hu, equalised, plan(SPACING, CONTRAST, WEIGHT), CPU, body)
    inside = cells_in_body(body, grid, (1, 1, 1))
    fine, coarse = ([width / edge for edge in SPACING] for width in (6, 20))
    expected = local_contrast(torch.from_numpy(raw), inside, fine, coarse, 0.6).numpy()
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-4, atol=1e-3)


def test_what_lies_outside_the_body_stays_the_lowest(tmp_path: Path) -> None:
    """Of a detector whose scores are all high, too: a contrast may be below 0."""
    statistics = {"mean": 9000.0, "std": 300.0, "lowest": 7000.0, "highest": 1e4}
    student = Student(torch.nn.Identity(), MEAN + 9000, STD)
    loaded = LoadedDetector(student, plan(SPACING, CONTRAST), statistics)
    assert loaded.map_statistics["lowest"] == -2000 and loaded.map_statistics["std"] == 300
    assert loaded._replace(plan=plan(SPACING)).map_statistics == statistics
    part = loaded._replace(plan=plan(SPACING, CONTRAST, WEIGHT)).map_statistics
    assert part["lowest"] == pytest.approx(7000 - 0.6 * 9000) and part["std"] == 300
    path = _made["write"](_made["turned"](_made["person"](), np.eye(3)), tmp_path / "in")
    assert predict_files(Predictor.of(loaded, CPU), {"scan": path}, tmp_path / "out") == {}
    images = (tmp_path / "out" / name for name in ("scan.nii.gz", "scan_body.nii.gz"))
    score, body = (sitk.GetArrayFromImage(sitk.ReadImage(str(image))) for image in images)
    assert (score[body == 0] == -2000).all() and score[body == 1].min() > -2000
    assert abs(np.median(score[body == 1])) < 500  # not near 9000


@pytest.mark.parametrize("widths", ["[8]", "[8, 8]", "[32, 8]", "[0, 8]", "[4, 8, 16]"])
def test_widths_that_are_none(widths: str) -> None:
    with pytest.raises(ScreenerError, match="contrast_mm"):
        plan(SPACING, f"inference.contrast_mm={widths}")


def test_maps_of_both_kinds_are_those_of_different_models() -> None:
    """Else a folder of maps of the one would be taken for that of the other."""
    weights = {"network_weights": {"w": torch.ones(2)}}
    changes = (), (CONTRAST,), (CONTRAST, WEIGHT)
    plans = ({**weights, "plan": plan(SPACING, *changed).to_dict()} for changed in changes)
    plain, *contrasts = (model_identity(checkpoint) for checkpoint in plans)
    assert plain == model_identity(weights) and len({plain, *contrasts}) == 3


def test_a_weight_of_no_contrast_is_refused() -> None:
    with pytest.raises(ScreenerError, match="set contrast_mm, too"):
        plan(SPACING, WEIGHT)
