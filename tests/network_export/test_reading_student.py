"""A student that reads its condition as a graph, density and all; its maps are those of predict."""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from screener_nnu.commands.export_network import main as export
from screener_nnu.commands.predict import main as predict
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.inference.sliding_window import cells_to_voxels
from screener_nnu.network_export.export import NetworkRequest, export_network

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["flow", pytest.param("experts", marks=pytest.mark.long)])
def reader_once(
    trained_once: Any, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Any:
    """World and export of a student whose tile holds a whole scan."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    root = tmp_path_factory.mktemp("exported")
    world = trained_once.copy(root / "world")
    # One tile: the program averages scores of voxels, we those of positions.
    settings = (
        *("density.flow_steps=1", "distillation.learns=condition"),
        "inference.student_tile=[64, 64, 64]",
    )
    if request.param == "experts":
        filters = '{"sigmas": [0.8, 1.6], "variance_sigmas": [1.6]}'
        settings += ("density.kind=experts", f"density.descriptor_options={filters}")
    plan = world.plan(*settings)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        (world.preprocessed / "ScreenerPlans.json").write_text(json.dumps(plan.to_dict()))
        for stage in ("density", "distillation"):
            world.train(stage, "--restart")
        words = ["--format", "onnx", "torch_export"]
        export(["-d", "901", "-o", str(root / "network"), *words])
    return world, root / "network"


@pytest.fixture
def reader(reader_once: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same with its environment."""
    for name, value in reader_once[0].environment.items():
        monkeypatch.setenv(name, value)
    return reader_once


def test_graphs_give_its_scores(reader: Any) -> None:
    import onnxruntime

    _, network = reader
    student, _, statistics = ModelRef("901", "ScreenerPlans").load(CPU)
    description = json.loads((network / "network.json").read_text())
    rule = description["preprocessing"]["normalisation"]
    assert (rule["clip_hu"], rule["mean_hu"], rule["std_hu"]) == ([-1000, 300], -1000, 1300)
    assert description["tiles"]["pad_value"] == 0
    shape = [3 * n for n in description["network"]["divisor"]]
    image = np.random.default_rng(1).random((2, 1, *shape)).astype(np.float32)
    cells = student(torch.from_numpy(image), torch.zeros(1, 3), torch.zeros(1, 3))
    expected = cells_to_voxels(cells, student.cell, (0, 0, 0), tuple(shape)).numpy()  # type: ignore[arg-type]
    assert expected.std() > 0.05 * statistics["std"]
    session = onnxruntime.InferenceSession(str(network / "network.onnx"))
    module = torch.export.load(network / "network.pt2").module()
    with torch.no_grad():
        found = [
            session.run(["score"], {"image": image})[0],
            module(torch.from_numpy(image)).numpy(),
        ]
    for scores in found:
        np.testing.assert_allclose(scores, expected, atol=1e-3 * statistics["std"], rtol=0)


def test_the_program_makes_its_maps(
    reader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, network = reader
    _, plan, statistics = ModelRef("901", "ScreenerPlans").load(CPU)
    scan = world.raw / "imagesTr" / "phantom_0003_0000.nii.gz"
    monkeypatch.syspath_prepend(network)
    program = run_path(str(network / "make_map.py"), run_name="make_map")
    description = program["read_description"](network / "network.json")
    session = program["open_network"](description, network, 1)
    found_map, _ = program["make_map"](sitk.ReadImage(str(scan)), session, description)
    predict(["-d", "901", "-i", str(scan), "-o", str(tmp_path / "ours"), "-device", "cpu"])
    (ours,) = (p for p in (tmp_path / "ours").glob("*.nii.gz") if "_body" not in p.name)
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(ours)))
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(found_map), values, atol=2e-3 * statistics["std"], rtol=0
    )
    assert plan.settings.preprocessing.equalisation == "none" and values.std() > 0.1


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ("preprocessing.equalisation=adaptive", "contrast of its images is equalised"),
        ("preprocessing.storage_spacing=[8.0, 6.0, 6.0]", "another voxel size"),
        ("density.pooling=[2, 2, 3]", "do not fit the network's strides"),
    ],
)
def test_what_no_graph_holds_is_refused(
    setting: str, reason: str, reading: Any, tmp_path: Path
) -> None:
    path = reading.stage("distillation") / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    if setting.startswith("density"):
        checkpoint["teacher"]["density"]["pooling"] = [2, 2, 3]
    checkpoint["plan"] = reading.plan(setting, "distillation.learns=condition").to_dict()
    torch.save(checkpoint, path)
    with pytest.raises(ScreenerError, match=f"{reason}.*distillation.learns=score"):
        export_network(NetworkRequest("901", "ScreenerPlans"), tmp_path / "network")
    assert not (tmp_path / "network").exists()
