"""Exported graphs give the student's scores, say nothing of this machine, and appear whole."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.commands.export_network import main
from screener_nnu.descriptors.exported_program import load_exported_program
from screener_nnu.descriptors.network_files import OnnxNetwork
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing
from screener_nnu.network_export.agreement import check_agreement
from screener_nnu.network_export.export import NetworkRequest, export_network
from screener_nnu.network_export.graph import trace
from screener_nnu.ownership import own_folder

CPU = torch.device("cpu")
Run = Callable[[np.ndarray], np.ndarray]


def runner(folder: Path, kind: str) -> Run:
    """The file as somebody else would use it."""
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "network.onnx"))
        return lambda image: session.run(["score"], {"image": image})[0]
    module = torch.export.load(folder / "network.pt2").module()
    return lambda image: module(torch.from_numpy(image)).detach().numpy()


@pytest.mark.parametrize("kind", ["onnx", "torch_export"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cells", [(2, 2, 2), (3, 4, 2), (2, 7, 5)])
def test_graph_gives_the_scores_of_the_student(
    kind: str, batch: int, cells: tuple[int, ...], exported: Path, students: Any
) -> None:
    student, _, statistics = ModelRef("901", "Fine").load(CPU)
    assert not student.low_precision_cpu
    description = json.loads((exported / "network.json").read_text())
    shape = [n * d for n, d in zip(cells, description["network"]["divisor"], strict=True)]
    image = np.random.default_rng(1).normal(0, 1, (batch, 1, *shape)).astype(np.float32)
    expected = student(torch.from_numpy(image), torch.zeros(1, 3), torch.zeros(1, 3)).numpy()
    found = runner(exported, kind)(image)
    assert found.dtype == np.float32 and found.shape == (batch, *shape)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4 * statistics["std"], rtol=0)


def test_one_axis_may_be_as_short_as_the_json_says(exported: Path, students: Any) -> None:
    student, _, statistics = ModelRef("901", "Fine").load(CPU)
    files = json.loads((exported / "network.json").read_text())["files"]
    for kind, file in files.items():
        z, y, x = file["smallest_axes"]
        image = np.random.default_rng(1).normal(0, 1, (1, 1, z, 2 * y, 2 * x)).astype(np.float32)
        expected = student(torch.from_numpy(image), torch.zeros(1, 3), torch.zeros(1, 3)).numpy()
        found = runner(exported, kind)(image)
        np.testing.assert_allclose(found, expected, atol=1e-4 * statistics["std"])


@pytest.mark.long
@pytest.mark.slow
def test_residual_encoder_is_exported_as_well(students: Any) -> None:
    from screener_nnu.network_export.graph import torch_export_bytes
    from screener_nnu.network_export.onnx_file import onnx_bytes
    from screener_nnu.networks.unet import build_unet
    from screener_nnu.plans import StockPlan
    from screener_nnu.scoring.student import Student

    pytest.importorskip("onnxscript")
    plan = StockPlan(students.plan().to_dict())
    block = plan.values["configurations"]["3d_fullres"]["architecture"]
    block["network_class_name"] = block["network_class_name"].replace(
        "PlainConvUNet", "ResidualEncoderUNet"
    )
    arguments = block["arch_kwargs"]
    if "n_conv_per_stage" in arguments:
        arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    # Strides that differ between axes: one of them is not halved at all.
    arguments["strides"] = [[1, 1, 1], *([1, 2, 2] for _ in arguments["strides"][1:])]
    student = Student(build_unet(plan, 1, 1, seed=0), 5.0, 2.0)
    divisor = plan.divisor
    assert divisor[0] == 1 and divisor[1] > 1
    program = trace(student, divisor)
    for network in (
        OnnxNetwork(onnx_bytes(program, {})),
        load_exported_program(torch_export_bytes(program)),
    ):
        agreement = check_agreement(network, student, divisor, None, "test", 2.0)
        assert agreement.max_relative < 1e-4


def test_files_say_nothing_of_this_machine(exported: Path, students: Any) -> None:
    package = str(Path(torch.__file__).parents[1])
    hidden = [package, "site-packages", str(Path(__file__).parents[2]), str(students.root)]
    names = [
        case
        for cases in asdict(students.plan(plans="Fine").settings.split).values()
        for case in cases
    ]
    assert len(names) == 6
    for path in filter(Path.is_file, exported.rglob("*")):
        content = path.read_bytes()
        for text in [*hidden, *names]:
            assert text.encode() not in content, (path.name, text)
    import onnx

    model = onnx.load(str(exported / "network.onnx"))
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 1, "z", "y", "x"]
    # Standard layers alone, of a version that runtimes of some age know.
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.ir_version == 8
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["license"] == "CC BY 4.0"


def test_json_belongs_to_its_files(exported: Path, students: Any) -> None:
    description = json.loads((exported / "network.json").read_text())
    names = {path.name for path in exported.glob("[!.]*")}
    assert names == {"network.json", "network.onnx", "network.pt2", "make_map.py", "body.py"}
    for file in description["files"].values():
        content = (exported / file["file"]).read_bytes()
        assert file["sha256"] == sha256(content).hexdigest() and file["bytes"] == len(content)
        assert 0 <= file["agreement"]["max_relative"] < 1e-4
    checkpoint = students.stage("distillation", "Fine") / "checkpoint_final.pth"
    model = description["model"]
    assert model["checkpoint_sha256"] == sha256(checkpoint.read_bytes()).hexdigest()
    assert model["license"] == "CC BY 4.0" and model["dataset"] == "Dataset901_Tiny"
    assert description["postprocessing"]["score_mean_nats"] == 31.0
    assert torch.__version__.startswith(description["versions"]["torch"])


def test_missing_packages_are_named_with_the_way_out(
    students: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit) as end:
        main(["-d", "901", "-p", "Fine", "-o", str(tmp_path / "out")])
    assert end.value.code == 1
    error = capsys.readouterr().err
    assert "onnxruntime" in error and "pip install 'screener_nnu[onnx]'" in error
    assert not (tmp_path / "out").exists()


def test_torch_export_needs_none_of_them(
    students: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("onnx", "onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    main(
        ["-d", "901", "-p", "Fine", "-o", str(tmp_path), "--format", "torch_export", "--no-dynamic"]
    )
    assert {p.name for p in tmp_path.glob("[!.]*")} == {"network.json", "network.pt2", "body.py"}


def test_torchscript_is_refused_with_the_reason(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["-d", "901", "-o", str(tmp_path), "--format", "torchscript"])
    assert "torch_export" in capsys.readouterr().err


def test_without_a_student_the_command_to_train_is_named(world: Any, tmp_path: Path) -> None:
    with pytest.raises(ScreenerError, match="screener_train 901 3d_fullres distillation"):
        export_network(NetworkRequest("901", "ScreenerPlans", ("torch_export",)), tmp_path)


@pytest.mark.parametrize(
    ("name", "group", "setting", "message"),
    [
        ("Mr", "preprocessing", {"modality": "mr"}, "planned for MR, .* is for CT alone"),
        ("Near", "inference", {"contrast_mm": [8.0, 32.0]}, "maps of Near are contrasts"),
    ],
)
def test_a_student_of_other_images_or_maps_is_refused(
    students: Any, tmp_path: Path, name: str, group: str, setting: dict[str, Any], message: str
) -> None:
    path = students.stage("distillation", "Fine") / "checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["plan"]["screener"][group].update(setting)
    path = students.stage("distillation", name) / "checkpoint_final.pth"
    path.parent.mkdir(parents=True)
    torch.save(checkpoint, path)
    (students.preprocessed / f"{name}.json").write_text(json.dumps(checkpoint["plan"]))
    with pytest.raises(ScreenerError, match=message):
        export_network(NetworkRequest("901", name, ("torch_export",)), tmp_path / "network")
    assert not (tmp_path / "network").exists()


def test_a_graph_with_other_scores_is_not_written(
    students: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from screener_nnu.network_export import export

    real = export.load_network
    monkeypatch.setattr(
        export, "load_network", lambda *file: lambda image: real(*file)(image) + 0.1
    )
    with pytest.raises(ScreenerError, match="nothing was written"):
        export_network(
            NetworkRequest("901", "Fine", ("torch_export",), dynamic=False), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_files_appear_together_or_not_at_all(
    students: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = NetworkRequest("901", "Fine", ("torch_export",), dynamic=False)
    with replacing(own_folder(tmp_path).folder / "network.json") as temporary:
        temporary.write_text("old")
    write = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if "pt2" in path.name:
            raise OSError(28, os.strerror(28))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(ScreenerError, match="(?i)no space left"):
            export_network(request, tmp_path)
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["network.json"]
    assert (tmp_path / "network.json").read_text() == "old"
    (tmp_path / "file").write_text("")
    with pytest.raises(ScreenerError, match="cannot hold the output"):
        export_network(request, tmp_path / "file")
    (tmp_path / "network.json").write_text("of somebody else")
    with pytest.raises(ScreenerError, match="network.json is not ours"):
        export_network(request, tmp_path)
    assert (tmp_path / "network.json").read_text() == "of somebody else"


def test_onnx_stays_exact_on_scans_that_are_mostly_air() -> None:
    """onnxruntime's own instance normalisation is wrong by 0.03 here."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from torch import nn

    from screener_nnu.network_export.onnx_file import onnx_bytes
    from screener_nnu.scoring.student import Student

    layers = [
        (nn.Conv3d(1, 1, 1), nn.InstanceNorm3d(1, affine=True), nn.LeakyReLU()) for _ in range(3)
    ]
    network = nn.Sequential(*[layer for block in layers for layer in block])
    axes = np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij")
    noise = np.random.default_rng(0).normal(0, 1, (1, 1, 64, 64, 64))
    image = np.where(sum(axis**2 for axis in axes) < 1, noise, -2.5).astype(np.float32)
    file = onnx_bytes(trace(Student(network, 0.0, 1.0), (4, 4, 4)), {})
    found = OnnxNetwork(file)(torch.from_numpy(image)).numpy()
    with torch.no_grad():
        expected = network.double()(torch.from_numpy(image).double())[:, 0].numpy()
    assert expected.std() > 0.3
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_examples_of_the_page_run(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    page = Path(__file__).parents[2] / "documentation" / "export_network.md"
    blocks = re.findall(r"(?:^    .*\n|^\n)+", page.read_text(), re.MULTILINE)
    examples = [dedent(block) for block in blocks if block.lstrip().startswith("import")]
    assert len(examples) == 2
    monkeypatch.chdir(exported)
    for example in examples:
        exec(compile(example, str(page), "exec"), {})
    assert capsys.readouterr().out.split("\n")[:2] == ["(1, 64, 48, 80) float32"] * 2
