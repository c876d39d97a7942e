"""The traced graph as an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.network_export.graph import INPUT_NAME, OUTPUT_NAME

# The oldest that the exporter writes by itself: older runtimes read it, and it has all we need.
OPSET = 18
_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_AXES = ("batch", "z", "y", "x")


def require_onnx() -> None:
    """Checks that the packages of the format are there.

    Raises:
        ScreenerError: they are not; the message says how to install them.
    """
    missing = []
    for name in _PACKAGES:
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ScreenerError(
            f"--format onnx needs {', '.join(missing)}: pip install 'screener_nnu[onnx]', or ask "
            "for --format torch_export"
        )


def onnx_bytes(program: Any, properties: Mapping[str, str]) -> bytes:
    """The ONNX file of a traced graph, weights inside.

    Args:
        program: see `trace`.
        properties: texts that go into the file, by name.
    """
    import onnx

    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    _clean(model)
    onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _clean(model: Any) -> None:
    """Takes out notes on the exporting program, and names the open axes."""
    graph = model.graph
    del graph.value_info[:]  # a runtime infers the shapes in between
    for entry in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del entry.metadata_props[:]
        entry.doc_string = ""
    for value in (*graph.input, *graph.output):
        open_dims = [d for d in value.type.tensor_type.shape.dim if d.dim_param]
        for dim, name in zip(open_dims, _AXES if open_dims else (), strict=True):
            dim.dim_param = name
