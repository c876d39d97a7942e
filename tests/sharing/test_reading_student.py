"""A student that reads its condition travels whole, and is checked like any other file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.commands.export_model import main as export
from screener_nnu.commands.install_model import main as install
from screener_nnu.errors import ScreenerError
from screener_nnu.sharing.manifest import StageFile
from screener_nnu.sharing.scrub import checkpoint_without_cases
from screener_nnu.sharing.weights_check import read_stage
from screener_nnu.stage_checkpoint import DENSITY, HEAD, StageCheckpoint

STUDENT = StageFile("ScreenerPlans", "distillation")


@pytest.fixture
def sent(reading: Any, predicted: Callable[..., np.ndarray], tmp_path: Path) -> Any:
    """A scan, its map, and the model's file."""
    scan = reading.raw / "imagesTr" / "phantom_0003_0000.nii.gz"
    expected = predicted(scan, tmp_path / "here", "student")
    export(["901", "-o", str(tmp_path / "model.zip")])
    return scan, expected, tmp_path / "model.zip"


@pytest.mark.parametrize("reading", ["flow", "experts"], indirect=True)
def test_it_gives_the_same_map_elsewhere(
    sent: Any, empty_world: Any, predicted: Callable[..., np.ndarray], tmp_path: Path
) -> None:
    scan, expected, file = sent
    install([str(file)])
    found = predicted(scan, tmp_path / "there", "student")
    np.testing.assert_array_equal(found, expected)
    assert expected.std() > 0.1


def _widen(checkpoint: dict[str, Any]) -> None:
    checkpoint["teacher"]["channels"][1] = 10**9


def _deepen(checkpoint: dict[str, Any]) -> None:
    checkpoint["teacher"]["density"]["hidden"] = 10**6


def _resize(checkpoint: dict[str, Any]) -> None:
    checkpoint[HEAD]["bias"] = torch.zeros(3)


def _not_finite(checkpoint: dict[str, Any]) -> None:
    checkpoint[DENSITY]["y_mean"][0] = float("nan")


def _plainly(checkpoint: dict[str, Any]) -> None:
    for key in (HEAD, DENSITY, "teacher"):
        del checkpoint[key]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (_widen, "has the channels"),
        (_deepen, "smaller than its plan says"),
        (_resize, r"bias is \(3,\)"),
        (_not_finite, "no finite numbers"),
        (_plainly, "another kind of student than its plan says"),
        (lambda c: c.pop(HEAD), f"entries {HEAD}"),
        (lambda c: c.update(teacher={"density": {}, "channels": [4, 4]}), "teacher.density"),
        (lambda c: c.update(teacher=3), "none of ours"),
        (lambda c: c["teacher"]["density"].update(descriptor="imagenet"), "'imagenet'"),
        (lambda c: c["teacher"].update(more=1), "none of ours"),
    ],
)
def test_what_does_not_fit_is_refused(edit: Any, reason: str, reading: Any, tmp_path: Path) -> None:
    path = reading.stage("distillation") / "checkpoint_final.pth"
    checkpoint = checkpoint_without_cases(StageCheckpoint(path, "distillation", "").read())
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    (tmp_path / "sound.pth").write_bytes(stream.getvalue())
    read_stage(tmp_path / "sound.pth", STUDENT)
    changed = torch.load(io.BytesIO(stream.getvalue()), weights_only=True)
    edit(changed)
    torch.save(changed, tmp_path / "changed.pth")
    with pytest.raises(ScreenerError, match=reason):
        read_stage(tmp_path / "changed.pth", STUDENT)
