"""What a prediction takes beside the scan: a whole body must fit into a desk computer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHILD = """
import json, sys
from pathlib import Path
import numpy as np, torch
import SimpleITK as sitk
from torch import nn
from screener_nnu.inference.predict import Predictor
from screener_nnu.plans import read_plan
from screener_nnu.preprocessing.reading import Geometry, RawImage
from screener_nnu.scoring.student import Student

def peak():
    lines = dict(l.split(":", 1) for l in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024

torch.set_num_threads(1)
plan = read_plan(Path(sys.argv[1]))

def person(shape):
    z, y, x = np.ogrid[: shape[0], -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    array = np.full(shape, -1000, np.float32)
    array[:, ((x / 0.9) ** 2 + (y / 0.9) ** 2 < 1)[0]] = 40
    image = sitk.Image([1, 1, 1], sitk.sitkFloat32)
    whole = Geometry((shape[2], shape[1], shape[0]), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0),
                     image.GetDirection(), "LPS")
    return RawImage("a", array, (1.0, 1.0, 1.0), whole)

predictor = Predictor(Student(nn.Identity(), 0.0, 1.0), plan, -9.0, torch.device("cpu"))
predictor.predict(person((30, 100, 100)))  # libraries are loaded when they are needed
raw = person((150, 400, 400))
before = peak()
result = predictor.predict(raw)
assert result.score.GetSize() == (400, 400, 150)
print((peak() - before) / raw.array.size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_bytes_beside_the_scan(made_world: Any, tmp_path: Path) -> None:
    """Map and its image take 4 bytes a voxel each, the mask 1; next to nothing is held besides."""
    spacing = "[3.6, 3.9, 3.9]"
    plan = made_world.plan(
        f"preprocessing.spacing={spacing}", f"preprocessing.storage_spacing={spacing}"
    )
    (tmp_path / "plan.json").write_text(json.dumps(plan.to_dict()))
    (tmp_path / "child.py").write_text(CHILD)
    command = [sys.executable, str(tmp_path / "child.py"), str(tmp_path / "plan.json")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert 4 < float(result.stdout.splitlines()[-1]) < 11
