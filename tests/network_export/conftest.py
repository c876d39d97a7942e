"""Students with random weights, exported once a test session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import SimpleITK as sitk  # noqa: N813

PLANS = "Fine"


def make_student(world: Any, plans: str) -> None:
    """A checkpoint as the distillation stage leaves it, of a network that has learned nothing."""
    import torch

    from screener_nnu.checkpoints import write_checkpoint
    from screener_nnu.networks.unet import build_unet

    plan = world.plan(plans=plans)
    network = build_unet(plan, 1, 1, seed=3)
    generator = torch.Generator().manual_seed(4)
    weights = {
        # Biases and norms that start at 0 and 1 could be mixed up without notice.
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in network.state_dict().items()
    }
    path = world.stage("distillation", plans) / "checkpoint_final.pth"
    path.parent.mkdir(parents=True)
    statistics = {"mean": 31.0, "std": 12.5, "lowest": -7.0, "highest": 400.0}
    values = {"plan": plan.to_dict(), "network_weights": weights, "score_statistics": statistics}
    write_checkpoint(values, path)


@pytest.fixture(scope="session")
def student_world(made_world: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny set with a student whose plan finds the body on a finer grid than the scores'."""
    world = made_world.copy(tmp_path_factory.mktemp("students") / "world")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        make_student(world, PLANS)
    # Without the environment: other sets are used in the same session.
    return world


@pytest.fixture
def students(student_world: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same for one test, with the environment set."""
    for name, value in student_world.environment.items():
        monkeypatch.setenv(name, value)
    return student_world


def export(world: Any, folder: Path, *words: str) -> Path:
    """What the command writes."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from screener_nnu.commands.export_network import main

    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        main(["-d", "901", "-p", PLANS, "-o", str(folder), *words])
    return folder


@pytest.fixture(scope="session")
def exported(student_world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both formats."""
    folder = tmp_path_factory.mktemp("network")
    words = ["--format", "onnx", "torch_export", "--license", "CC BY 4.0"]
    return export(student_world, folder, *words)


@pytest.fixture(scope="session")
def exported_fixed(student_world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a graph without open axes."""
    return export(student_world, tmp_path_factory.mktemp("fixed"), "--no-dynamic")


@pytest.fixture
def scan(student_world: Any, tmp_path: Path) -> Path:
    """A phantom whose file runs along other axes than the canonical ones."""
    image = sitk.ReadImage(str(student_world.raw / "imagesTr" / "phantom_0003_0000.nii.gz"))
    path = tmp_path / "scan.nrrd"
    sitk.WriteImage(sitk.DICOMOrient(image, "SAR"), str(path))
    return path


@pytest.fixture
def predicted(students: Any) -> Callable[..., tuple[sitk.Image, sitk.Image]]:
    """Map and body of `screener_predict`."""

    def predict(scan: Path, folder: Path) -> tuple[sitk.Image, sitk.Image]:
        from screener_nnu.commands.predict import main

        main(["-d", "901", "-p", PLANS, "-i", str(scan), "-o", str(folder), "-device", "cpu"])
        score, body = (sitk.ReadImage(str(folder / f"scan{end}.nii.gz")) for end in ("", "_body"))
        return score, body

    return predict


@pytest.fixture
def program(exported: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the exported `make_map.py` defines."""
    monkeypatch.syspath_prepend(exported)
    return run_path(str(exported / "make_map.py"), run_name="make_map")
