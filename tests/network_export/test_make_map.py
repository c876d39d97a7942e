"""The JSON is complete: a program that knows nothing else makes the map of `screener_predict`."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

# Standard deviation of the scores of the students of this folder.
STD = 12.5
# Runs a file in a process that cannot import our package, torch or nnU-Net.
ALONE = """
import importlib.abc, runpy, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"screener_nnu", "torch", "nnunetv2", "skimage"}:
            raise ImportError(f"{name} must not be needed")

sys.meta_path.insert(0, Blocked())
sys.argv = sys.argv[1:]
sys.path[0] = sys.argv[0].rpartition("/")[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_alone(folder: Path, scan: Path, target: Path) -> tuple[sitk.Image, sitk.Image]:
    words = [folder / "make_map.py", folder / "network.json", scan, target, "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    body = target.with_name(target.name.replace(".nii.gz", "_body.nii.gz"))
    return sitk.ReadImage(str(target)), sitk.ReadImage(str(body))


def test_it_makes_the_map_of_predict(
    exported: Path, scan: Path, predicted: Callable[..., Any], tmp_path: Path
) -> None:
    expected, expected_body = predicted(scan, tmp_path / "ours")
    found, found_body = run_alone(exported, scan, tmp_path / "map.nii.gz")
    for a, b in ((found, expected), (found_body, expected_body)):
        assert a.GetPixelID() == b.GetPixelID() and a.GetSize() == b.GetSize()
        for get in ("GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(a, get)(), getattr(b, get)(), atol=1e-6)
    body = sitk.GetArrayFromImage(expected_body)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found_body), body)
    assert 0.2 < body.mean() < 0.95
    values = sitk.GetArrayFromImage(expected)
    assert values[body > 0].std() > 0.1
    np.testing.assert_allclose(sitk.GetArrayFromImage(found), values, atol=1e-3 * STD, rtol=0)


@pytest.mark.slow
def test_a_fixed_graph_is_tiled_over_the_scan(
    exported_fixed: Path, program: dict[str, Any], students: Any
) -> None:
    """Against tiles of the student itself, of the graph's own shape everywhere."""
    import torch

    from screener_nnu.detectors import ModelRef
    from screener_nnu.inference.sliding_window import score_volume

    description = program["read_description"](exported_fixed / "network.json")
    assert description["network"]["input"]["shape"] == [1, 1, 16, 16, 16]
    session = program["open_network"](description, exported_fixed, 1)
    image = np.random.default_rng(0).normal(0, 1, (9, 30, 21)).astype(np.float32)
    found = program["score"](image, session, description)
    student, plan, _ = ModelRef("901", "Fine").load(torch.device("cpu"))
    pad = description["tiles"]["pad_value"]
    higher = np.pad(image, [(0, 7), (0, 0), (0, 0)], constant_values=pad)
    divisor = tuple(description["network"]["divisor"])
    expected = score_volume(student, torch.from_numpy(higher), (16, 16, 16), 0.5, divisor, pad)
    assert found.shape == image.shape
    np.testing.assert_allclose(found, expected.numpy()[:9], atol=1e-3 * STD)


CHANGES: dict[str, tuple[tuple[str, ...], Any]] = {
    "block": (("preprocessing", "body_box", "block_mm"), 40.0),
    "box threshold": (("preprocessing", "body_box", "threshold_hu"), 60.0),
    "clip": (("preprocessing", "image", "clip_hu"), [-900.0, 50.0]),
    "spacing": (("preprocessing", "image", "spacing_mm"), [13.0, 9.0, 9.0]),
    "normalised clip": (("preprocessing", "normalisation", "clip_hu"), [-900.0, 50.0]),
    "mean": (("preprocessing", "normalisation", "mean_hu"), 500.0),
    "std": (("preprocessing", "normalisation", "std_hu"), 20.0),
    "mask clip": (("preprocessing", "body_mask", "clip_hu"), [-1000.0, -900.0]),
    "mask spacing": (("preprocessing", "body_mask", "spacing_mm"), [24.0, 18.0, 18.0]),
    "mask threshold": (("preprocessing", "body_mask", "threshold_hu"), 40.0),
    "divisor": (("network", "divisor"), [16, 16, 16]),
    "tile": (("tiles", "largest"), [12, 16, 24]),
    "overlap": (("tiles", "overlap"), 0.0),
    "pad": (("tiles", "pad_value"), 9.0),
    "outside": (("postprocessing", "outside_body_nats"), -70.0),
    "orientation": (("preprocessing", "orientation", "code"), "RAS"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_number_is_read_from_the_json(
    name: str, exported: Path, program: dict[str, Any], scan: Path
) -> None:
    """A program with a number of its own in place of one of the JSON would not notice."""
    description = program["read_description"](exported / "network.json")
    session = program["open_network"](description, exported, 1)
    image = sitk.ReadImage(str(scan))
    usual = [sitk.GetArrayFromImage(a) for a in program["make_map"](image, session, description)]
    changed = copy.deepcopy(description)
    (*path, last), value = CHANGES[name]
    node = changed
    for key in path:
        node = node[key]
    assert node[last] != value
    node[last] = value
    other = [sitk.GetArrayFromImage(a) for a in program["make_map"](image, session, changed)]
    assert any(not np.array_equal(a, b) for a, b in zip(usual, other, strict=True))


def test_it_refuses_a_network_of_another_export(
    exported: Path, program: dict[str, Any], tmp_path: Path
) -> None:
    description = json.loads((exported / "network.json").read_text())
    (tmp_path / "network.onnx").write_bytes((exported / "network.onnx").read_bytes() + b" ")
    with pytest.raises(SystemExit, match="does not belong"):
        program["open_network"](description, tmp_path, 1)
    (tmp_path / "other.json").write_text(json.dumps({**description, "format_version": 1}))
    with pytest.raises(SystemExit, match="format"):
        program["read_description"](tmp_path / "other.json")
