"""Model files of a tiny trained chain, and ways to spoil them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

STUDENT = "checkpoints/ScreenerPlans/distillation.pth"
PLAN = "plans/ScreenerPlans.json"
Members = dict[str, bytes]


@pytest.fixture(scope="session")
def model_files(trained_once: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with and without the teacher."""
    from screener_nnu.commands.export_model import main

    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in trained_once.environment.items():
            patch.setenv(name, value)
        words = ["--license", "CC BY 4.0", "--description", "Phantoms of the trunk."]
        main(["901", "-o", str(folder / "student.zip")])
        main(["901", "-o", str(folder / "teacher.zip"), "--teacher", *words])
    return {"student": folder / "student.zip", "teacher": folder / "teacher.zip"}


@pytest.fixture(scope="session")
def source_maps(trained_once: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Maps of one scan by the model where it was trained."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in trained_once.environment.items():
            patch.setenv(name, value)
        scan = trained_once.raw / "imagesTr" / "phantom_0003_0000.nii.gz"
        folder = tmp_path_factory.mktemp("maps")
        found = {kind: predict_map(scan, folder / kind, kind) for kind in ("student", "teacher")}
    return {**found, "scan": scan}


def predict_map(scan: Path, folder: Path, kind: str, dataset: str = "901") -> np.ndarray:
    """`screener_predict` in this process."""
    from screener_nnu.commands.predict import main

    words = ["--teacher"] if kind == "teacher" else []
    main(["-d", dataset, "-i", str(scan), "-o", str(folder), "-device", "cpu", *words])
    (path,) = (p for p in folder.glob("*.nii.gz") if not p.name.endswith("_body.nii.gz"))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


@pytest.fixture
def predicted() -> Callable[..., np.ndarray]:
    return predict_map


@pytest.fixture
def rebuilt(
    model_files: dict[str, Path], tmp_path: Path
) -> Callable[[Callable[[Members], None]], Path]:
    """A model file with changed members and hashes that fit them: made by somebody who can."""

    def rebuild(change: Callable[[Members], None], kind: str = "student") -> Path:
        with zipfile.ZipFile(model_files[kind]) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        before = members["model.json"]
        change(members)
        if members["model.json"] == before:
            files = {
                name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                for name, content in members.items()
                if name != "model.json"
            }
            members["model.json"] = json.dumps({**json.loads(before), "files": files}).encode()
        path = tmp_path / "rebuilt.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return path

    return rebuild


@pytest.fixture
def changed_checkpoint() -> Callable[[Members, Callable[[dict[str, Any]], None]], None]:
    """Changes values of the student's checkpoint among the members."""

    def change(members: Members, edit: Callable[[dict[str, Any]], None]) -> None:
        checkpoint = torch.load(io.BytesIO(members[STUDENT]), weights_only=True)
        edit(checkpoint)
        stream = io.BytesIO()
        torch.save(checkpoint, stream)
        members[STUDENT] = stream.getvalue()

    return change


@pytest.fixture
def nothing_written(empty_world: Any) -> Iterator[None]:
    """The folders are as empty after the test as before it, but for the lock."""
    yield
    left = [p for p in empty_world.root.rglob("*") if p.is_file() or p.is_symlink()]
    assert [p.name for p in left if p.name != ".screener_install.lock"] == []
    folders = {p.name for p in empty_world.root.rglob("*") if p.is_dir()}
    assert folders == {"raw", "preprocessed", "results"}
    assert not os.path.exists("/tmp/screener_nnu_escaped")
