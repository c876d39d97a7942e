"""The traced graph as an ONNX file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.network_export.graph import INPUT_NAME, OUTPUT_NAME

# The oldest that the exporter writes by itself, and the file version of its time: older runtimes
# read them, and they have all we need.
OPSET = 18
_IR_VERSION = 8
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

    for name in ("onnxscript", "onnx_ir"):  # they report each step of their optimiser
        logging.getLogger(name).setLevel(logging.WARNING)
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        opset_version=OPSET,
        custom_translation_table={torch.ops.aten.instance_norm.default: _instance_norm()},
        external_data=False,
        verbose=False,
    )
    assert exported is not None
    model = exported.model_proto
    model.ir_version = _IR_VERSION
    _clean(model)
    onnx.helper.set_model_props(model, dict(properties))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _instance_norm() -> Callable[..., Any]:
    """Instance normalisation as means along one axis after the other.

    onnxruntime's own layer adds up all voxels of a channel in a row in float32. Where many are
    alike, as air is, that loses three digits and more: 0.025 nats instead of 0.00005 on a head.
    """
    from onnxscript import opset18

    op: Any = opset18

    def mean(values: Any) -> Any:
        for axis in (4, 3, 2):
            values = op.ReduceMean(values, op.Constant(value_ints=[axis]), keepdims=1)
        return values

    def per_channel(values: Any) -> Any:
        return op.Unsqueeze(values, op.Constant(value_ints=[0, 2, 3, 4]))

    def translate(
        image: Any,
        weight: Any = None,
        bias: Any = None,
        running_mean: Any = None,
        running_var: Any = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
        cudnn_enabled: bool = True,
    ) -> Any:
        assert use_input_stats and running_mean is None and running_var is None
        centred = op.Sub(image, mean(image))
        variance = op.Add(mean(op.Mul(centred, centred)), op.Constant(value_float=eps))
        scale = op.Reciprocal(op.Sqrt(variance))
        if weight is not None:
            scale = op.Mul(scale, per_channel(weight))
        scaled = op.Mul(centred, scale)
        return scaled if bias is None else op.Add(scaled, per_channel(bias))

    return translate


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
