"""The student as one float32 graph, image in and nats out, free of traces of this machine."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import nn

from screener_nnu.plans import Shape
from screener_nnu.scoring.student import Student

INPUT_NAME = "image"
OUTPUT_NAME = "score"
_AXES = ("z", "y", "x")


class ScoreNetwork(nn.Module):
    """The student without mixed precision, and without the arguments that it does not use.

    Args:
        student: what is exported; its weights are shared.
    """

    def __init__(self, student: Student) -> None:
        """Keeps the network and the scale of its output."""
        super().__init__()
        self.network = student.network
        self.score_mean = student.score_mean
        self.score_std = student.score_std
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores (B, D, H, W) in nats, float32, of normalised images (B, 1, D, H, W)."""
        return self.network(image)[:, 0] * self.score_std + self.score_mean


def trace(student: Student, divisor: Shape, fixed: Shape | None = None) -> Any:
    """The graph as a `torch.export.ExportedProgram`.

    Args:
        student: on the CPU.
        divisor: multiple of the input's size that the network needs, per axis.
        fixed: shape of the only input that the graph takes, one image at a time; without it batch
            and all multiples of the divisor are left open.
    """
    network = ScoreNetwork(student)
    if fixed is not None:
        return _without_traces(torch.export.export(network, (torch.zeros(1, 1, *fixed),)))
    # Sizes of one are special to the tracer, so the example has more of everything.
    sizes = [(i + 2) * n for i, n in enumerate(divisor)]
    dims: dict[int, Any] = {0: torch.export.Dim("batch")}
    for axis, (name, multiple) in enumerate(zip(_AXES, divisor, strict=True), start=2):
        dim = torch.export.Dim(f"{name}_cells")
        dims[axis] = dim if multiple == 1 else multiple * dim
    example = torch.zeros(2, 1, *sizes)
    return _without_traces(torch.export.export(network, (example,), dynamic_shapes=(dims,)))


def _without_traces(program: Any) -> Any:
    """Takes out the lines of source, with paths of this machine, that each operation names."""
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


def torch_export_bytes(program: Any) -> bytes:
    """The `.pt2` file of a traced graph."""
    stream = io.BytesIO()
    torch.export.save(program, stream)
    return stream.getvalue()
