"""What `documentation/extending.md` promises: a new part is a class and one entry."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from screener_nnu import densities, detectors, losses, stages
from screener_nnu.calibration.store import load_calibration
from screener_nnu.commands.predict import main as predict
from screener_nnu.commands.train import main as train
from screener_nnu.conditions import CONDITIONS, Condition
from screener_nnu.densities import DENSITIES, FittedDensity
from screener_nnu.detectors import DETECTORS, DetectorSpec, ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import BASELINES
from screener_nnu.setting_values import Positive
from screener_nnu.trainers.density import DensityTrainer

PAGE = Path(__file__).parents[1] / "documentation" / "extending.md"


@dataclass(frozen=True)
class BoxSettings:
    """Of `BoxDensity`."""

    width: Positive = 3.0


class BoxDensity(FittedDensity):
    """Typical is what lies within so many deviations of the mean."""

    unit = "none"
    Settings = BoxSettings
    mean: Tensor

    def __init__(self, dim: int, cond_dim: int = 0, width: float = 3.0) -> None:
        super().__init__(dim, cond_dim)
        self.width = width
        self.register_buffer("mean", torch.zeros(0))

    def _fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        self.mean = y.mean(dim=0)

    def _score_rows(self, y: Tensor, c: Tensor | None) -> Tensor:
        return -(y - self.mean).abs().amax(dim=1) / self.width


class DepthCondition(Condition):
    """How high in the body a voxel lies."""

    channels = 1

    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        index = torch.arange(image.shape[2], dtype=torch.float32)[None, :]
        depth = (start[:, :1] + index) / extent[:, :1]
        return depth[:, None, :, None, None].expand(image.shape)


class BoxTrainer(DensityTrainer):
    """A stage of its own under another name."""


@pytest.mark.slow
def test_a_density_a_condition_and_a_detector(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DENSITIES, "box", BoxDensity)
    monkeypatch.setitem(CONDITIONS, "depth", DepthCondition)
    overrides = ("density.kind=box", "condition.kind=depth", "density.options.width=2.0")
    spec = DetectorSpec("a box", "density", DETECTORS["teacher"].load, overrides, "none")
    monkeypatch.setitem(DETECTORS, "box", spec)
    train(["901", "3d_fullres", "box", "-device", "cpu"])
    model = ModelRef("901", detector="box")
    loaded = model.load(torch.device("cpu"))
    assert isinstance(loaded.module.density.density, BoxDensity)
    assert loaded.module.density.density.width == 2.0
    assert loaded.module.density.density.mean.shape == (4,)
    assert load_calibration(model) is not None
    scan = sorted((trained.raw / "imagesTr").iterdir())[0]
    words = ["-d", "901", "--detector", "box", "-device", "cpu"]
    predict([*words, "-i", str(scan), "-o", str(tmp_path / "maps"), "--threshold", "p99"])
    assert (tmp_path / "maps" / "phantom_0000_mask.nii.gz").is_file()
    with pytest.raises(SystemExit):
        train(["901", "3d_fullres", "density", "-p", "Odd", *_set(overrides[:2]), *_set(["x.y=1"])])


def _set(settings: Any) -> list[str]:
    return [word for setting in settings for word in ("-o", setting)]


def test_options_of_a_density_are_checked(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DENSITIES, "box", BoxDensity)
    from screener_nnu.planners.settings_check import check_settings

    for wrong, message in (("width=0", "width must be above 0"), ("depth=1", "depth")):
        plan = world.plan("density.kind=box", f"density.options.{wrong}")
        with pytest.raises(ScreenerError, match=message):
            check_settings(plan)


def test_a_stage_is_one_entry(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from screener_nnu.paths import stage_folder
    from screener_nnu.trainers.stages import trainer_of

    monkeypatch.setattr(stages, "load_object", lambda path: BoxTrainer)
    monkeypatch.setattr("screener_nnu.trainers.stages.load_object", lambda path: BoxTrainer)
    monkeypatch.setitem(stages.STAGES, "box", "somewhere:BoxTrainer")
    assert trainer_of("box") is BoxTrainer
    folder = stage_folder("901", "box", "ScreenerPlans")
    assert folder.parent.name == "BoxTrainer__ScreenerPlans__3d_fullres"


def test_the_page_names_registries_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", text))
    known = {
        "LOSSES": losses.LOSSES,
        "DENSITIES": densities.DENSITIES,
        "CONDITIONS": CONDITIONS,
        "TRAINED_BY": {},
        "STAGES": stages.STAGES,
        "DETECTORS": detectors.DETECTORS,
        "BASELINES": BASELINES,
    }
    assert named == set(known)
    for path in re.findall(r"`((?:screener_nnu|trainers|planners)/[\w/]+\.py)`", text):
        assert (PAGE.parents[1] / path).is_file(), path
