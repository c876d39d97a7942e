"""MR volumes from a folder to maps, and models that meet images of another modality."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from matplotlib.image import imread

from screener_nnu.calibration.store import load_calibration
from screener_nnu.commands.calibrate import main as calibrate
from screener_nnu.commands.plan_and_preprocess import main as plan_and_preprocess
from screener_nnu.commands.predict import main as predict
from screener_nnu.commands.train import main as train
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import CaseError
from screener_nnu.inference.api import as_raw_image, load_predictor
from screener_nnu.paths import plan_file
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.reading import read_image
from screener_nnu.synthetic import generate_phantom

SCANS = 5
SPACING = (12.0, 9.0, 9.0)
_STAGES = ("descriptor", "condition.contrast", "density", "distillation")
_STEPS = {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}
_CONTRAST = {"channels": 4, "head_width": 32, "volumes_per_step": 2, "positives": 64}
SETTINGS = (
    *(f"{stage}.optimiser.{k}={v}" for stage in _STAGES for k, v in _STEPS.items()),
    *(f"{stage}.{k}={v}" for stage in _STAGES[:2] for k, v in _CONTRAST.items()),
    "density.hidden=8",
    "density.flow_steps=2",
    "low_precision_cpu=false",
)


def magnetic(seed: int, scale: float = 1.0) -> sitk.Image:
    """A phantom as T1 may show it: bright fat, dark water, noise, a bias field, another scale."""
    phantom = generate_phantom(seed, spacing=SPACING)
    hu = phantom.image_hu.astype(np.float64)
    rng = np.random.default_rng(seed)
    signal = np.where(phantom.body & (hu > -500), 250 + 450 * np.exp(-(((hu + 90) / 90) ** 2)), 0)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in hu.shape], indexing="ij")
    signal = signal * np.exp(0.2 * x + 0.1 * y - 0.1 * z)
    noisy = np.hypot(signal + rng.normal(0, 8, hu.shape), rng.normal(0, 8, hu.shape))
    noisy[:, 0], noisy[:, -1] = 0, 0
    return image_of((scale * noisy).round().astype(np.uint16))


def image_of(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    return image


def enter(root: Path, patch: pytest.MonkeyPatch) -> None:
    for kind in ("raw", "preprocessed", "results"):
        (root / kind).mkdir(exist_ok=True)
        patch.setenv(f"nnUNet_{kind}", str(root / kind))
    patch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained_on_mr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders in which the chain of an MR data set is trained."""
    root = tmp_path_factory.mktemp("mr")
    folder = root / "raw" / "Dataset905_Magnetic"
    (folder / "imagesTr").mkdir(parents=True)
    for i in range(SCANS):
        path = folder / "imagesTr" / f"scan_{i}_0000.nii.gz"
        sitk.WriteImage(magnetic(i, 1 + 3 * i), str(path))
    values = {"channel_names": {"0": "T1w"}, "labels": {"background": 0}}
    values |= {"numTraining": SCANS, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(values))
    with pytest.MonkeyPatch.context() as patch:
        enter(root, patch)
        plan_and_preprocess(["-d", "905", "--preset", "cpu", "--width", "4", "-np", "1"])
        words = [word for setting in SETTINGS for word in ("-o", setting)]
        train(["905", "3d_fullres", "chain", "-device", "cpu", *words])
    return root


@pytest.fixture
def world(trained_on_mr: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(trained_on_mr, monkeypatch)
    return trained_on_mr


def write_new(folder: Path) -> Path:
    """A folder with one new scan of MR and one of CT."""
    folder.mkdir()
    sitk.WriteImage(magnetic(50, 0.3), str(folder / "mr_0000.nii.gz"))
    hu = generate_phantom(50, spacing=SPACING).image_hu
    sitk.WriteImage(image_of(hu), str(folder / "ct_0000.nii.gz"))
    return folder


@pytest.mark.slow
def test_chain_and_ct_that_is_refused(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = read_plan(plan_file("905", "ScreenerPlans"))
    assert plan.settings.preprocessing.modality == "mr" and not plan.standardises
    images, maps = write_new(tmp_path / "in"), tmp_path / "maps"
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as end:
        predict(["-d", "905", "-i", str(images), "-o", str(maps), "-device", "cpu", "--page"])
    assert end.value.code == 1
    assert "skipped ct: its values are Hounsfield units, so this is CT and not MR" in caplog.text
    score, body = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(maps / name)))
        for name in ("mr.nii.gz", "mr_body.nii.gz")
    )
    assert np.isfinite(score).all() and score[body > 0].std() > 0 and 0.2 < body.mean() < 0.95
    assert not (maps / "ct.nii.gz").exists()
    picture = imread(maps / "mr.png")
    assert len(np.unique(picture[..., 0])) > 50  # tissue is seen, and not one grey
    # The scale of the values says nothing.
    predictor = load_predictor("905", device="cpu")
    louder = sitk.Cast(sitk.ReadImage(str(images / "mr_0000.nii.gz")), sitk.sitkFloat32) * 7
    again = predictor.predict(as_raw_image(louder, modality="mr"))
    found = sitk.GetArrayFromImage(again.score)
    np.testing.assert_allclose(found[body > 0], score[body > 0], atol=0.05 * score.std())


@pytest.mark.slow
def test_ct_models_refuse_mr(
    trained: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images, maps = write_new(tmp_path / "in"), tmp_path / "maps"
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit):
        predict(["-d", "901", "-i", str(images), "-o", str(maps), "-device", "cpu"])
    assert "skipped mr: no value is negative" in caplog.text
    assert "MR needs a plan and a model of its own" in caplog.text
    assert (maps / "ct.nii.gz").is_file() and not (maps / "mr.nii.gz").exists()
    raw = as_raw_image(magnetic(50), modality="mr")
    with pytest.raises(CaseError, match="read as MR, and the plan is one of CT"):
        load_predictor("901", device="cpu").predict(raw)


@pytest.mark.slow
def test_calibration_on_images_of_ones_own(world: Path, tmp_path: Path) -> None:
    images = tmp_path / "in"
    images.mkdir()
    for i in range(3):
        sitk.WriteImage(magnetic(60 + i, 2.0), str(images / f"own_{i}_0000.nii.gz"))
    calibrate(["-d", "905", "--images", str(images), "-device", "cpu"])
    found = load_calibration(ModelRef("905"))
    assert found is not None and len(found.case_scores) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["padim", pytest.param("knn_imagenet", marks=pytest.mark.long)])
def test_further_detectors(world: Path, tmp_path: Path, name: str) -> None:
    train(["905", "3d_fullres", name, "-device", "cpu"])
    path = tmp_path / "mr_0000.nii.gz"
    sitk.WriteImage(magnetic(50), str(path))
    predictor = load_predictor("905", detector=name, device="cpu")
    result = predictor.predict(read_image(path, "mr", "mr"))
    score, body = (sitk.GetArrayFromImage(image) for image in (result.score, result.body))
    assert np.isfinite(score).all() and score[body > 0].std() > 0
