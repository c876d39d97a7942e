"""What `documentation/extending.md` promises: a new part is a class and one entry."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from matplotlib.image import imread, imsave
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor

from screener_nnu import densities, detectors, losses, stages
from screener_nnu.calibration.store import load_calibration
from screener_nnu.commands.evaluate import main as evaluate
from screener_nnu.commands.predict import main as predict
from screener_nnu.commands.preview_medmix import main as preview_medmix
from screener_nnu.commands.train import main as train
from screener_nnu.conditions import CONDITIONS, Condition
from screener_nnu.densities import DENSITIES, FittedDensity
from screener_nnu.detectors import DETECTORS, DetectorSpec, ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.evaluation.baselines import BASELINES, PICTURE_BASELINES
from screener_nnu.evaluation.metrics import METRICS, METRICS_AT_THRESHOLD, Metric
from screener_nnu.files import replacing
from screener_nnu.inference.output_folder import taken_names
from screener_nnu.outputs.extras import MappedCase
from screener_nnu.outputs.products import PRODUCTS, Product
from screener_nnu.preprocessing.modality import MODALITIES
from screener_nnu.pretext_settings import METHODS
from screener_nnu.setting_values import Positive
from screener_nnu.synthetic.shifts import SHIFTS, Shift, ShiftRequest
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


def balanced_accuracy(positive: np.ndarray, negative: np.ndarray, first: int) -> np.ndarray:
    """Mean share of each class on its side of the threshold."""
    found = positive[..., first:].sum(-1) / positive.sum(-1)
    return (found + negative[..., :first].sum(-1) / negative.sum(-1)) / 2


def test_a_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, masks = [], []
    for case in range(4):
        generator = np.random.default_rng(case)
        mask = (generator.random((6, 8, 10)) < 0.1).astype(np.uint8)
        score = (generator.normal(size=mask.shape) + mask).astype(np.float32)
        for name, array in (("", score), ("_body", np.ones_like(mask))):
            _write(tmp_path / "maps" / f"{case}{name}.nii.gz", array)
        _write(tmp_path / "masks" / f"{case}.nii.gz", mask)
        scores.append(score.ravel())
        masks.append(mask.ravel())
    words = ["-i", str(tmp_path / "maps"), "-r", str(tmp_path / "masks"), "--threshold", "0.5"]
    evaluate(words)
    assert "balanced" not in capsys.readouterr().out
    metric = Metric("balanced accuracy", balanced_accuracy)
    monkeypatch.setitem(METRICS_AT_THRESHOLD, "balanced_accuracy", metric)
    evaluate(words)
    out = tmp_path / "maps" / "evaluation"
    expected = balanced_accuracy_score(np.concatenate(masks), np.concatenate(scores) > 0.5)
    (pooled,) = _rows(out / "pooled.csv")
    assert float(pooled["balanced_accuracy"]) == pytest.approx(expected, abs=1e-9)
    low, high = (float(pooled[f"balanced_accuracy_{end}"]) for end in ("low", "high"))
    assert low < expected < high
    table = capsys.readouterr().out
    assert "balanced accuracy" in table and f"{expected:.3f} [{low:.3f}, {high:.3f}]" in table
    values = json.loads((out / "summary.json").read_text())["methods"]["screener"]
    assert values["balanced_accuracy"] == float(pooled["balanced_accuracy"])
    assert values["intervals_95"]["balanced_accuracy"] == {"low": low, "high": high}
    for row, score, mask in zip(_rows(out / "cases.csv"), scores, masks, strict=True):
        of_case = balanced_accuracy_score(mask, score > 0.5)
        assert float(row["balanced_accuracy"]) == pytest.approx(of_case, abs=1e-9)


def _write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_projection(of: MappedCase) -> dict[str, Any]:
    """The highest score along the second axis, as a picture."""
    highest = sitk.GetArrayViewFromImage(of.result.score).max(axis=1)
    with replacing(of.path("_projection.png")) as temporary:
        imsave(temporary, highest, format="png", vmin=0.0, vmax=20.0)
    return {"listed": None if of.findings is None else len(of.findings.rows)}


@pytest.mark.slow
def test_an_output(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ending = "_projection.png"
    product = Product(
        "the map from the front", f"{__name__}:write_projection", (ending,), 4, (), (ending,)
    )
    monkeypatch.setitem(PRODUCTS, "projection", product)
    assert set(taken_names(["a", "a_projection"])) == {"a_projection"}
    with pytest.raises(SystemExit):
        predict(["--help"])
    assert re.search(r"--projection +the map from the front", capsys.readouterr().out)
    scan, out = sorted((trained.raw / "imagesTr").iterdir())[0], tmp_path / "maps"
    words = ["-d", "901", "-i", str(scan), "-o", str(out), "-device", "cpu"]
    predict(words)
    picture, record = out / f"phantom_0000{ending}", out / "phantom_0000.json"
    assert not picture.exists()
    predict([*words, "--projection"])
    score = sitk.GetArrayFromImage(sitk.ReadImage(str(out / "phantom_0000.nii.gz")))
    assert imread(picture).shape[:2] == (score.shape[0], score.shape[2])
    made = picture.stat().st_mtime_ns
    predict([*words, "--projection"])
    assert picture.stat().st_mtime_ns == made
    assert json.loads(record.read_text())["projection"] == {"listed": None}
    listing = [*words, "--threshold", "p99", "--findings"]
    predict([*listing, "--projection"])
    assert picture.stat().st_mtime_ns != made
    values = json.loads(record.read_text())
    assert values["projection"] == {"listed": values["findings"]}
    predict([*listing, "--threshold", "p99.9"])
    assert not picture.exists() and "projection" not in json.loads(record.read_text())
    predict([*words, "--projection"])
    predict([*words, "--overwrite"])
    assert not picture.exists()
    picture.write_text("mine")
    with pytest.raises(SystemExit):
        predict([*words, "--projection"])
    assert picture.read_text() == "mine"


def upside_down(of: ShiftRequest) -> tuple[Tensor, Tensor]:
    """Class 1 stands on its head."""
    return of.images.flip(3), of.masks(1)


def test_a_change_of_images(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHIFTS, "upside_down", Shift(upside_down, most_classes=2))
    words = ["-d", "901", "-o", str(tmp_path / "sheet.png"), "--cases", "2"]
    preview_medmix([*words, "--shift", "upside_down"])
    assert "2 cases in 2 classes of upside_down" in capsys.readouterr().out
    assert imread(tmp_path / "sheet.png").ndim == 3


def test_the_page_names_registries_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", text))
    known = {
        "LOSSES": losses.LOSSES,
        "DENSITIES": densities.DENSITIES,
        "CONDITIONS": CONDITIONS,
        "TRAINED_BY": {},
        "STAGES": stages.STAGES,
        "OPTIMISERS": stages.OPTIMISERS,
        "DETECTORS": detectors.DETECTORS,
        "METHODS": METHODS,
        "BASELINES": BASELINES,
        "PICTURE_BASELINES": PICTURE_BASELINES,
        "MODALITIES": MODALITIES,
        "METRICS": METRICS,
        "METRICS_AT_THRESHOLD": METRICS_AT_THRESHOLD,
        "PRODUCTS": PRODUCTS,
        "SHIFTS": SHIFTS,
    }
    assert named == set(known)
    for path in re.findall(r"`((?:screener_nnu|trainers|planners)/[\w/]+\.py)`", text):
        assert (PAGE.parents[1] / path).is_file(), path
