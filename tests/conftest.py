"""A tiny pre-training set of phantoms, planned, prepared and trained once a test session."""

from __future__ import annotations

import json
import locale
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from screener_nnu.plans import Plan

# Before torch is imported: processes that test side by side have a core each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

DATASET = "Dataset901_Tiny"
STAGES = ("descriptor", "condition", "density", "distillation")
# Voxels are coarse, so that scans have some 24 x 28 x 36 of them and crops 12 x 16 x 16.
SPACING = (12.0, 9.0, 9.0)
SCANS = 6
_CONTRAST = ("channels=4", "head_width=32", "volumes_per_step=2", "positives=64")
_SCHEDULES = {
    "descriptor": "descriptor",
    "condition": "condition.contrast",
    "density": "density",
    "distillation": "distillation",
    "pretext": "pretext",
    "baseline": "baseline",
    "start": "start",
}
TINY = (
    "low_precision_cpu=false",
    *(f"{stage}.{s}" for stage in ("descriptor", "condition.contrast") for s in _CONTRAST),
    *(
        f"{stage}.optimiser.{key}={value}"
        for stage in _SCHEDULES.values()
        for key, value in (("steps", 4), ("steps_per_epoch", 2), ("warmup_steps", 1))
    ),
    "pretext.images_per_step=2",
    "condition.kind=masking_invariant",
    # The paper's; two experts have tests of their own.
    "density.kind=flow",
    "density.volumes_per_step=2",
    "density.whole_scans=false",
    "density.pooling=[2, 2, 2]",
    "density.crop_size=[12, 16, 16]",
    "density.hidden=8",
    "density.flow_steps=2",
    "distillation.learns=score",
    "distillation.hidden=8",
    "distillation.positions=200",
    "distillation.crop_size=[12, 16, 16]",
    "distillation.volumes_per_step=2",
    "baseline.crops_per_step=2",
    "start.crops_per_step=2",
    "igd.optimiser.steps=4",
    "igd.optimiser.steps_per_epoch=2",
    "igd.optimiser.learning_rate=1e-3",
    "igd.width=16",
    "igd.latent=8",
    "igd.patch=8",
    "igd.images_per_step=4",
    "igd.patches=4",
    "igd.reestimate_every=2",
    "inference.teacher_tile=[48, 48, 48]",
    "inference.student_tile=[16, 16, 16]",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    add = parser.addoption
    add("--write_page", action="store_true", help="write the page of robustness, or of faults")
    add("--tries", type=int, default=1, help="of every fault")
    add("--fault_seed", type=int, default=0, help="of the moments and places of faults")


@dataclass(frozen=True)
class TinyWorld:
    """nnU-Net's three folders with the set in them."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        kinds = ("raw", "preprocessed", "results")
        return {f"nnUNet_{kind}": str(self.root / kind) for kind in kinds}

    @property
    def raw(self) -> Path:
        return self.root / "raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / DATASET

    @property
    def cases(self) -> Path:
        return self.preprocessed / "ScreenerPlans_screener"

    def stage(self, stage: str, plans: str = "ScreenerPlans") -> Path:
        from screener_nnu.paths import stage_folder

        return stage_folder(DATASET, stage, plans)

    def plan(self, *overrides: str, plans: str = "ScreenerPlans") -> Plan:
        """The plan with other settings, not written."""
        from screener_nnu.plans import read_plan

        plan = read_plan(self.preprocessed / f"{plans}.json")
        return plan.with_settings(plan.settings.override(list(overrides)))

    def trainer(self, stage: str, *overrides: str, plans: str = "ScreenerPlans") -> Any:
        """An initialised trainer of a stage on the CPU."""
        import torch

        from screener_nnu.trainers.stages import trainer_of

        description = json.loads((self.preprocessed / "dataset.json").read_text())
        # nnU-Net's own command adds that key, and its trainer takes it out again.
        plan = {**self.plan(*overrides, plans=plans).to_dict(), "continue_training": False}
        device = torch.device("cpu")
        trainer = trainer_of(stage)(plan, "3d_fullres", "all", description, device)
        trainer.initialize()
        return trainer

    def train(self, stage: str, *arguments: str) -> None:
        """`screener_train` in this process."""
        from screener_nnu.commands.train import main

        main(["901", "3d_fullres", stage, "-device", "cpu", *arguments])

    def copy(self, root: Path) -> TinyWorld:
        """The same with folders of its own; scans are shared and only read."""
        root.mkdir(parents=True, exist_ok=True)
        (root / "raw").symlink_to((self.root / "raw").resolve(), target_is_directory=True)
        for kind in ("preprocessed", "results"):
            shutil.copytree(self.root / kind, root / kind)
        return TinyWorld(root)


def enter(world: TinyWorld, patch: pytest.MonkeyPatch) -> None:
    """Makes nnU-Net and us use the folders of a world, in this process and its children."""
    import torch

    for name, value in world.environment.items():
        patch.setenv(name, value)
    patch.setenv("OMP_NUM_THREADS", "1")
    patch.setenv("OMP_WAIT_POLICY", "passive")
    torch.set_num_threads(1)


def shrink_network(plan: dict[str, Any]) -> None:
    """Widths of 4, 8, 16 instead of those of the preset."""
    arguments = plan["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arguments["features_per_stage"] = [4 * 2**i for i in range(arguments["n_stages"])]


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """No test depends on what ran before it."""
    import torch

    torch.manual_seed(0)
    before = locale.setlocale(locale.LC_ALL)
    yield
    # SimpleITK's writer of DICOM sets the C locale: later tests would read text as ASCII.
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="session")
def made_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyWorld]:
    from screener_nnu.planners.run import plan_dataset, preprocess_planned
    from screener_nnu.plans import Plan, write_json
    from screener_nnu.synthetic import write_phantom_dataset

    world = TinyWorld(tmp_path_factory.mktemp("made"))
    (world.root / "results").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        enter(world, patch)
        write_phantom_dataset(world.root / "raw", DATASET, SCANS, 7, spacing=SPACING)
        request = {"preset": "cpu", "num_test": 1, "plans_name": "ScreenerPlans"}
        plan_dataset(["901"], None, 1, request)
        path = world.preprocessed / "ScreenerPlans.json"
        values = json.loads(path.read_text())
        shrink_network(values)
        plan = Plan.from_dict(values)
        plan = plan.with_settings(plan.settings.override(list(TINY)))
        write_json(path, plan.to_dict())
        preprocess_planned(DATASET, "ScreenerPlans", 0)
        # The same scans kept finer than the plan's grid, as the preset `paper` does.
        finer = ["preprocessing.storage_spacing=[8.0, 6.0, 6.0]", 'data_identifier="Fine_screener"']
        fine = plan.with_settings(plan.settings.override(finer)).to_dict()
        write_json(world.preprocessed / "Fine.json", {**fine, "plans_name": "Fine"})
        preprocess_planned(DATASET, "Fine", 0)
        yield world


@pytest.fixture(scope="session")
def trained_once(
    made_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TinyWorld]:
    world = made_world.copy(tmp_path_factory.mktemp("trained") / "world")
    with pytest.MonkeyPatch.context() as patch:
        enter(world, patch)
        world.train("chain")
        yield world


@pytest.fixture
def world(made_world: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyWorld:
    """Planned and prepared, nothing trained; a copy that a test may change."""
    copy = made_world.copy(tmp_path / "world")
    enter(copy, monkeypatch)
    return copy


@pytest.fixture
def trained(trained_once: TinyWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyWorld:
    """All stages trained for a few steps; a copy that a test may change."""
    copy = trained_once.copy(tmp_path / "trained")
    enter(copy, monkeypatch)
    return copy


@pytest.fixture(scope="session")
def reading_once(
    trained_once: TinyWorld, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], TinyWorld]:
    """A world by kind of density, with a student that reads its condition."""

    @cache
    def made(kind: str) -> TinyWorld:
        world = trained_once.copy(tmp_path_factory.mktemp(f"reading_{kind}") / "world")
        with pytest.MonkeyPatch.context() as patch:
            enter(world, patch)
            if kind == "experts":
                world.train("density", "--restart", "-o", "density.kind=experts")
            world.train("distillation", "--restart", "-o", "distillation.learns=condition")
        return world

    return made


@pytest.fixture
def reading(
    reading_once: Callable[[str], TinyWorld],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> TinyWorld:
    """With a student that reads its condition, of one flow or, where asked for, two experts."""
    kind = getattr(request, "param", "flow")
    copy = reading_once(kind).copy(tmp_path / "reading")
    enter(copy, monkeypatch)
    return copy


@pytest.fixture
def empty_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyWorld:
    """Folders without a set."""
    world = TinyWorld(tmp_path / "empty")
    for kind in ("raw", "preprocessed", "results"):
        (world.root / kind).mkdir(parents=True)
    enter(world, monkeypatch)
    return world


class _PoolsOfThreads:
    """A way of starting processes whose pools are threads; all else is the way it stands for."""

    Pool = ThreadPool

    def __init__(self, way: Any) -> None:
        self._way = way

    def __getattr__(self, name: str) -> Any:
        return getattr(self._way, name)


@pytest.fixture
def light_nnunet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock nnU-Net in this process: each of its processes would import torch anew."""
    from nnunetv2.training.logging.nnunet_logger import LocalLogger

    real = multiprocessing.get_context

    def way(method: str | None = None) -> _PoolsOfThreads:
        return _PoolsOfThreads(real(method))

    monkeypatch.setattr(multiprocessing, "get_context", way)
    # A picture of 30 x 54 inches after every epoch.
    monkeypatch.setattr(LocalLogger, "plot_progress_png", lambda self, folder: None)
    for name, value in {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def tiny_settings() -> Callable[..., list[str]]:
    """Arguments `-o key=value` of a tiny run, and more settings behind them."""

    def arguments(*more: str) -> list[str]:
        return [word for setting in (*TINY, *more) for word in ("-o", setting)]

    return arguments


@pytest.fixture(scope="session")
def shrink() -> Callable[[dict[str, Any]], None]:
    """Makes the network of a plan tiny."""
    return shrink_network


def write_dicom_series(
    folder: Path,
    array: Any,
    uid: str = "1.2.826.1",
    spacing: tuple[float, float, float] = (3.0, 2.0, 2.5),
    direction: Any = None,
    origin: tuple[float, float, float] = (-21.5, 33.25, -402.5),
    change: Callable[[Any, int], None] | None = None,
) -> list[Path]:
    """A CT series with a file a slice, whose names neither tell the order nor end in `.dcm`.

    Args:
        folder: made if it is not there.
        array: HU, whole numbers, (z, y, x).
        uid: Series Instance UID.
        spacing: mm, (z, y, x).
        direction: 3 x 3, columns: directions of x, y, z (LPS).
        origin: centre of the first voxel (mm, LPS).
        change: called with each data set and its slice before it is written.

    Returns:
        Files in the order of the slices.
    """
    import hashlib

    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    axes = np.eye(3) if direction is None else np.asarray(direction, dtype=float)
    files = []
    for index, values in enumerate(np.asarray(array)):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = CTImageStorage
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"{uid}.{index + 1}"
        one.SeriesInstanceUID, one.StudyInstanceUID, one.Modality = uid, "1.2.826.9", "CT"
        one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.PatientName, one.PatientID, one.StudyDate = "Nightingale^Florence", "NF1820", "18200512"
        one.FrameOfReferenceUID = f"{uid}.0"
        one.SeriesDescription, one.SeriesNumber, one.InstanceNumber = "Thorax soft", 4, index + 1
        one.AcquisitionNumber, one.ContentTime = 1, f"1012{index:02d}"
        place = np.asarray(origin) + index * spacing[0] * axes[:, 2]
        one.ImagePositionPatient = [f"{value:.8g}" for value in place]
        one.ImageOrientationPatient = [f"{value:.10f}" for value in axes[:, :2].T.ravel()]
        one.PixelSpacing, one.SliceThickness = [spacing[1], spacing[2]], spacing[0]
        one.Rows, one.Columns = values.shape
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.RescaleIntercept, one.RescaleSlope, one.RescaleType = -1024, 1, "HU"
        one.PixelData = (values + 1024).astype("<u2").tobytes()
        if change is not None:
            change(one, index)
        name = hashlib.sha256(str(one.SOPInstanceUID).encode()).hexdigest()[:8]
        files.append(folder / f"I{name}")
        one.save_as(files[-1], enforce_file_format=True)
    return files


@pytest.fixture(scope="session")
def write_dicom() -> Callable[..., list[Path]]:
    """Writes a generated CT series: see `write_dicom_series`."""
    return write_dicom_series
