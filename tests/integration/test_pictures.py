"""Pictures from a folder to maps: grey and colour, every detector, and a run that was killed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy import ndimage

from screener_nnu.calibration.store import load_calibration
from screener_nnu.commands.plan_and_preprocess import main as plan_and_preprocess
from screener_nnu.commands.train import main as train
from screener_nnu.detectors import DETECTORS, OTHER_DESCRIPTORS, OTHER_METHODS, ModelRef
from screener_nnu.finetuning.starts import find_start
from screener_nnu.inference.api import as_raw_image, load_predictor
from screener_nnu.networks.unet import build_unet
from screener_nnu.paths import plan_file, stage_folder
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.pictures import write_picture
from screener_nnu.preprocessing.reading import read_image

NUMBERS = {1: "903", 3: "904"}
PICTURES = 14
ROWS, COLUMNS = 60, 90
_STAGES = (
    *("descriptor", "condition.contrast", "density", "distillation", "pretext", "baseline"),
    "start",
)
_STEPS = {"steps": 4, "steps_per_epoch": 2, "warmup_steps": 1}
_CONTRAST = {"channels": 4, "head_width": 32, "volumes_per_step": 2, "positives": 64}
SETTINGS = (
    *(f"{stage}.optimiser.{k}={v}" for stage in _STAGES for k, v in _STEPS.items()),
    *(f"{stage}.{k}={v}" for stage in _STAGES[:2] for k, v in _CONTRAST.items()),
    "igd.optimiser.steps=4",
    "igd.optimiser.steps_per_epoch=2",
    "igd.width=16",
    "igd.patches=4",
    "pretext.images_per_step=2",
    "condition.kind=masking_invariant",
    "density.hidden=8",
    "density.flow_steps=2",
    "low_precision_cpu=false",
    "workers=0",
)
OWN = [name for name in DETECTORS if name.rpartition("_")[2] not in OTHER_DESCRIPTORS]
#: Tried each time; the others with `-m long`.
SHORT = {"padim", "msde_pooled", "autoencoder"}
FURTHER = [
    *(n for n in OWN if DETECTORS[n].overrides and n not in OTHER_METHODS),
    "autoencoder",
    "igd_pretext",
    "padim_levels",
    "knn_imagenet",
]


def draw(seed: int, colours: int) -> np.ndarray:
    """Texture in the circle of a camera, (C, H, W), black around it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:ROWS, :COLUMNS]
    noise = ndimage.gaussian_filter(rng.normal(size=(colours, ROWS, COLUMNS)), (0, 1.5, 1.5))
    values = 120 + 40 * noise / noise.std() + 0.4 * x
    values[:, (y - 30) ** 2 + (x - 45) ** 2 > 29**2] = 0
    return values.clip(0, 255).astype(np.uint8)


def write_data(raw: Path, colours: int) -> None:
    """A raw data set as `screener_import` writes it."""
    folder = raw / f"Dataset{NUMBERS[colours]}_Photos"
    (folder / "imagesTr").mkdir(parents=True)
    rows = []
    for i in range(PICTURES):
        write_picture(draw(i, colours), folder / "imagesTr" / f"photo_{i:02d}_0000.png")
        rows.append([f"photo_{i:02d}", "train", 0, f"patient {i // 2}", f"{i}.png"])
    with (folder / "pictures.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["case", "split", "label", "group", "source"], *rows])
    names = {"0": "grey"} if colours == 1 else {"0": "R", "1": "G", "2": "B"}
    values = {"channel_names": names, "labels": {"background": 0}, "numTraining": PICTURES}
    values |= {"file_ending": ".png", "modality": "picture"}
    (folder / "dataset.json").write_text(json.dumps(values))


def enter(root: Path, patch: pytest.MonkeyPatch) -> None:
    for kind in ("raw", "preprocessed", "results"):
        (root / kind).mkdir(parents=True, exist_ok=True)
        patch.setenv(f"nnUNet_{kind}", str(root / kind))
    patch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)


def prepare(root: Path, colours: int) -> None:
    write_data(root / "raw", colours)
    request = ["-d", NUMBERS[colours], "--preset", "cpu", "--width", "4", "-np", "1"]
    plan_and_preprocess([*request, "--picture_size", "48", "64"])


def settings() -> list[str]:
    return [word for setting in SETTINGS for word in ("-o", setting)]


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colour"])
def trained_on_photos(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, int]:
    """Folders in which a chain is trained, and the number of colours."""
    root = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        enter(root, patch)
        prepare(root, request.param)
        train([NUMBERS[request.param], "2d", "chain", "-device", "cpu", *settings()])
    return root, request.param


@pytest.fixture
def photos(trained_on_photos: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> int:
    """Number of colours."""
    root, colours = trained_on_photos
    enter(root, monkeypatch)
    return colours


def check_map(model: ModelRef, folder: Path, colours: int) -> None:
    """A map of a picture has the picture's size, says something, and the same from memory."""
    predictor = load_predictor(model.dataset, model.plans, model.detector, "cpu")
    pixels = draw(99, colours)
    pixels[:, 20:32, 40:52] = 250
    write_picture(pixels, folder / "new.png")
    result = predictor.predict(read_image(folder / "new.png", "new", "picture"))
    score, body = (sitk.GetArrayFromImage(image) for image in (result.score, result.body))
    assert score.shape == body.shape == (1, ROWS, COLUMNS) and score.dtype == np.float32
    lit = pixels.max(axis=0) > 0
    assert ((body[0] > 0) == lit).mean() > 0.98
    inside = score[body > 0]
    assert np.isfinite(score).all() and inside.std() > 0
    assert np.unique(score[body == 0]).size == 1
    array = pixels[0] if colours == 1 else np.moveaxis(pixels, 0, -1)
    again = predictor.predict(as_raw_image(array, modality="picture"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(again.score), score)


@pytest.mark.slow
def test_chain(photos: int, tmp_path: Path) -> None:
    number = NUMBERS[photos]
    plan = read_plan(plan_file(number, "ScreenerPlans"))
    assert plan.configuration_name == "2d" and plan.channels == photos
    # Pictures of a patient are together.
    parts = [{case[-2:] for case in part} for part in (plan.settings.split.train,)]
    assert all(f"{int(n) ^ 1:02d}" in part for part in parts for n in part)
    for name in ("student", "teacher"):
        check_map(ModelRef(number, detector=name), tmp_path, photos)
    found = load_calibration(ModelRef(number))
    assert found is not None and found.source == "validation scans"
    folder = stage_folder(number, "distillation", "ScreenerPlans")
    assert folder.parent.name == "DistillationTrainer__ScreenerPlans__2d"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [n if n in SHORT else pytest.param(n, marks=pytest.mark.long) for n in FURTHER],
)
def test_every_detector(photos: int, tmp_path: Path, name: str) -> None:
    number = NUMBERS[photos]
    train([number, "2d", name, "-device", "cpu"])
    check_map(ModelRef(number, detector=name), tmp_path, photos)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["masked_autoencoder", "swin_tasks"])
def test_starts_of_fine_tuning(photos: int, name: str) -> None:
    number = NUMBERS[photos]
    train([number, "2d", f"start_{name}", "-device", "cpu"])
    plan = read_plan(plan_file(number, "ScreenerPlans"))
    found = find_start(name, plan.dataset, plan.name, plan)
    checkpoint = torch.load(found.weights, weights_only=True)
    network = build_unet(plan, photos, 1)
    network.load_state_dict(checkpoint["network_weights"])
    rest = [len(v) for k, v in checkpoint["method_weights"].items() if k.startswith("network.")]
    # A grey picture needs no further output, a coloured one two.
    assert set(rest) == (set() if photos == 1 else {2})


@pytest.mark.slow
def test_padim_has_a_gaussian_for_each_place(photos: int) -> None:
    number = NUMBERS[photos]
    train([number, "2d", "padim", "-device", "cpu"])
    model = ModelRef(number, detector="padim")
    plan = read_plan(plan_file(number, model.trained_plans))
    assert plan.settings.density.options == {"bins": [1, 0, 0]}
    predictor = load_predictor(number, detector="padim", device="cpu")
    (density,) = (m for m in predictor.scorer.modules() if hasattr(m, "bin_counts"))
    # Positions of 4 x 4 pixels of 48 x 64; the body fills the box nearly to its sides.
    assert density.bin_counts.tolist() == [1, 12, 16]
    # What is odd is where the map is highest: in a blob, or within 8 pixels of it.
    pixels = draw(99, photos)
    pixels[:, 20:28, 50:58] = 255
    picture = as_raw_image(np.moveaxis(pixels, 0, -1).squeeze(), modality="picture")
    score = sitk.GetArrayFromImage(predictor.predict(picture).score)[0]
    row, column = np.unravel_index(score.argmax(), score.shape)
    assert max(20 - row, row - 27, 50 - column, column - 57) <= 8
