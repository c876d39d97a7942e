"""Files of networks: computed as the network itself, and nothing of a stranger's is run."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from screener_nnu.descriptors.network_files import load_network
from screener_nnu.errors import ScreenerError

torch.set_num_threads(1)
ENDINGS = [".pt", ".pt2", ".onnx"]
MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
EXAMPLE = "data/sample_inputs/model.pt"
Write = Callable[..., Path]
Files = dict[str, bytes]
Change = Callable[[Files], Files]


def load(path: Path) -> nn.Module:
    return load_network(path, path.read_bytes())


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_computes_what_its_network_does(
    ending: str, network_file: Write, encoder: Callable[[], nn.Module]
) -> None:
    network = load(network_file(ending))
    assert not any(p.requires_grad for p in network.parameters())
    for shape in ((1, 1, 4, 6, 8), (3, 1, 5, 8, 4)):
        image = torch.rand(shape)
        with torch.no_grad():
            torch.testing.assert_close(network(image), encoder()(image), rtol=1e-4, atol=1e-5)


def test_a_frozen_script_is_read(tmp_path: Path, encoder: Callable[[], nn.Module]) -> None:
    script = torch.jit.freeze(torch.jit.script(encoder()))
    torch.jit.save(script, tmp_path / "frozen.pt")
    image = torch.rand(1, 1, 4, 6, 8)
    with torch.no_grad():
        torch.testing.assert_close(load(tmp_path / "frozen.pt")(image), encoder()(image))


def test_a_script_in_training_mode_is_put_into_evaluation(tmp_path: Path) -> None:
    script = torch.jit.script(nn.Sequential(nn.Conv3d(1, 2, 1), nn.Dropout(0.5)).train())
    torch.jit.save(script, tmp_path / "training.pt")
    network, image = load(tmp_path / "training.pt"), torch.rand(1, 1, 4, 4, 4)
    assert torch.equal(network(image), network(image))


@pytest.mark.parametrize("ending", [*ENDINGS, ".pth", ".bin", ""])
def test_a_file_that_is_none_is_refused(ending: str, tmp_path: Path) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
    path = tmp_path / f"network{ending}"
    for content in (b"", b"nothing of the kind", zipped({"a/b": b"c"})):
        path.write_bytes(content)
        with pytest.raises(ScreenerError) as refused:
            load(path)
        assert str(path) in str(refused.value)


class Evil:
    """Makes the file `ran` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("ran", "w")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is made when something of a stranger's is run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "ran"


@pytest.mark.parametrize("ending", [".pt", ".pt2", ".pth", ".onnx"])
def test_a_pickle_does_not_run(ending: str, ran: Path) -> None:
    if ending == ".onnx":
        pytest.importorskip("onnxruntime")
    path = ran.with_name(f"network{ending}")
    stream = io.BytesIO()
    torch.save({"network": Evil()}, stream)
    for content in (stream.getvalue(), pickle.dumps(Evil())):
        path.write_bytes(content)
        with pytest.raises(ScreenerError):
            load(path)
    assert not ran.exists()
    pickle.loads(path.read_bytes())
    assert ran.exists()  # so it would have been made


def test_a_pickled_module_is_named_as_such(tmp_path: Path) -> None:
    torch.save(nn.Conv3d(1, 1, 1), tmp_path / "module.pt")
    with pytest.raises(ScreenerError, match="pickle of torch.save and no TorchScript.*jit.save"):
        load(tmp_path / "module.pt")
    torch.save(nn.Conv3d(1, 1, 1), tmp_path / "module.pth")
    with pytest.raises(ScreenerError, match=r"comes as TorchScript \(.pt\), exported program"):
        load(tmp_path / "module.pth")


class Writer(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        torch.save(image, "ran")
        return image


def test_a_script_that_writes_files_is_refused(ran: Path) -> None:
    path = ran.with_name("writer.pt")
    torch.jit.save(torch.jit.script(Writer()), path)
    with pytest.raises(ScreenerError, match="'save', the name of an operator that reaches out"):
        load(path)
    torch.jit.load(path)(torch.zeros(1))
    assert ran.exists()  # so it would have


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def unzipped(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {n.split("/", 1)[1]: archive.read(n) for n in archive.namelist()}


def changed(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(zipped({f"model/{name}": content for name, content in files.items()}))
    return path


def test_example_inputs_are_not_unpickled(network_file: Write, ran: Path) -> None:
    path = network_file(".pt2")
    stream = io.BytesIO()
    torch.save(((Evil(),), {}), stream)
    changed(path, {**unzipped(path), EXAMPLE: stream.getvalue()})
    image = torch.rand(1, 1, 4, 6, 8)
    assert load(path)(image).shape == (1, 3, 4, 3, 4) and not ran.exists()
    with suppress(Exception):
        torch.export.load(path)
    assert ran.exists()  # so torch alone would have run it


def test_guards_and_notes_are_not_run(network_file: Write, ran: Path) -> None:
    def change(model: Any) -> None:
        model["guards_code"] = ["open('ran', 'w')"]
        model["graph_module"]["graph"]["nodes"][0]["metadata"]["stack_trace"] = "open('ran', 'w')"

    path = network_file(".pt2")
    changed(path, described(change)(unzipped(path)))
    load(path)(torch.rand(1, 1, 4, 6, 8))
    assert not ran.exists()


def test_a_size_that_is_code_is_refused(network_file: Write, ran: Path) -> None:
    path = network_file(".pt2")
    files = unzipped(path)
    text = files[MODEL].decode()
    size = next(f for f in formulas(json.loads(text)) if f.startswith("Symbol("))
    evil = "__import__('builtins').open('ran', 'w')"
    changed(path, {**files, MODEL: text.replace(size, evil).encode()})
    with pytest.raises(ScreenerError, match="as a size, which could run code of a stranger"):
        load(path)
    assert not ran.exists()
    with suppress(Exception):
        torch.export.load(path).module()
    assert ran.exists()  # so torch alone would have run it


def formulas(value: Any) -> list[str]:
    """All formulas of sizes below a value."""
    if isinstance(value, dict):
        own = [value["expr_str"]] if "expr_str" in value else []
        return own + [f for inner in value.values() for f in formulas(inner)]
    return [f for inner in value for f in formulas(inner)] if isinstance(value, list) else []


def described(change: Callable[[Any], object]) -> Change:
    """Changes the description of the graph."""

    def apply(files: Files) -> Files:
        model = json.loads(files[MODEL])
        change(model)
        return {**files, MODEL: json.dumps(model).encode()}

    return apply


def with_formula(formula: str) -> Change:
    def apply(files: Files) -> Files:
        model = json.loads(files[MODEL])
        text = json.dumps(model).replace(json.dumps(formulas(model)[0]), json.dumps(formula))
        return {**files, MODEL: text.encode()}

    return apply


def with_target(target: str) -> Change:
    return described(lambda m: m["graph_module"]["graph"]["nodes"][0].update(target=target))


def with_name(files: Files) -> Files:
    """The graph becomes a function whose arguments have the names of its inputs."""
    text = files[MODEL].decode()
    assert '"image"' in text
    return {**files, MODEL: text.replace('"image"', "\"image=open('ran', 'w')\"").encode()}


@described
def with_other_tree(model: Any) -> None:
    signature = model["graph_module"]["module_call_graph"][0]["signature"]
    protocol, tree = json.loads(signature["in_spec"])
    tree["type"] = "collections.defaultdict"
    tree["context"] = json.dumps({"default_factory_module": "antigravity"})
    signature["in_spec"] = json.dumps([protocol, tree])


def with_pickle(files: Files) -> Files:
    config = json.loads(files[WEIGHTS])
    next(iter(config["config"].values()))["use_pickle"] = True
    stream = io.BytesIO()
    torch.save(Evil(), stream)
    weights = {"data/weights/weight_0": stream.getvalue()}
    return {**files, **weights, WEIGHTS: json.dumps(config).encode()}


FORMULAS = [
    "().__class__.__base__.__subclasses__()",
    "open('ran', 'w')",
    "[x for x in (1,)]",
    "Symbol('s77').func('ran')",
    "(lambda: 1)()",
    "Symbol(\"__import__('os')\")",
    "Mul(",
    "Symbol('a', **{})",
]
TARGETS = [
    "torch.load",
    "torch.ops.aten.from_file.default",
    "torch.ops.aten.__class__.mro",
    "torch.ops.higher_order.cond",
    "torch.hub.load",
    "_operator.attrgetter",
    "math.os",
    "#python:x",
]
OTHER_FILES = [
    "data/aotinductor/model/x.so",
    "data/weights/model.pt",
    "data/constants/custom_obj_0",
]
REFUSED: list[tuple[Change, str]] = [
    *((with_formula(formula), "as a size") for formula in FORMULAS),
    *((with_target(target), f"it holds '{target}' in its graph") for target in TARGETS),
    *(
        (lambda files, name=name: {**files, name: b"\x7fELF"}, f"it holds the file {name}")
        for name in OTHER_FILES
    ),
    (with_name, "in its graph, which could run code"),
    (with_other_tree, "of the kind collections.defaultdict"),
    (with_pickle, "it holds a pickle"),
]


@pytest.mark.parametrize("change,says", REFUSED)
def test_more_than_arithmetic_is_refused(
    change: Change, says: str, network_file: Write, ran: Path
) -> None:
    path = network_file(".pt2")
    changed(path, change(unzipped(path)))
    with pytest.raises(ScreenerError, match=says):
        load(path)
    assert not ran.exists()


@pytest.mark.parametrize("ending", [".pt", ".pt2"])
def test_names_in_an_archive_are_unique(ending: str, network_file: Write) -> None:
    """Two readers could take different ones of two files under one name."""
    path = network_file(ending)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"other")
    with pytest.raises(ScreenerError):
        load(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_truncated_file_is_refused(ending: str, network_file: Write) -> None:
    path = network_file(ending)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ScreenerError, match="cannot be used"):
        load(path)


def test_onnx_weights_in_another_file_are_refused(network_file: Write, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(network_file(".onnx"))
    path = tmp_path / "outside.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ScreenerError, match="its weights are in another file"):
        load(path)


def test_onnx_with_two_inputs_is_refused(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    kind, helper = onnx.TensorProto.FLOAT, onnx.helper
    a, b, c = (helper.make_tensor_value_info(name, kind, [1]) for name in "abc")
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "sum", [a, b], [c])
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, ir_version=8, opset_imports=opset)
    (tmp_path / "sum.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ScreenerError, match="it has 2 inputs and 1 outputs, and one of each"):
        load(tmp_path / "sum.onnx")


def test_missing_onnxruntime_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "a.onnx").touch()
    with pytest.raises(
        ScreenerError, match=r"is not installed: pip install 'screener_nnu\[onnx\]'"
    ):
        load(tmp_path / "a.onnx")
