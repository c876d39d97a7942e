"""The student as one float32 graph, image in and nats out, free of traces of this machine."""

from __future__ import annotations

import io
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.plans import Shape
from screener_nnu.scoring.reading_student import ReadingStudent
from screener_nnu.scoring.student import Student

AnyStudent = Student | ReadingStudent
INPUT_NAME = "image"
OUTPUT_NAME = "score"
_AXES = ("z", "y", "x")


class ScoreNetwork(nn.Module):
    """A student without mixed precision, and without the arguments that it does not use.

    Args:
        student: what is exported; its weights are shared.
    """

    def __init__(self, student: AnyStudent) -> None:
        """Keeps the student."""
        super().__init__()
        self.student = student
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Scores (B, D, H, W) in nats, float32, of images (B, 1, D, H, W) as the student reads."""
        student = self.student
        if isinstance(student, Student):
            return student.network(image)[:, 0] * student.score_std + student.score_mean
        cells = student.scores(image)
        # Between the centres of cells as `cells_to_voxels` has it.
        return F.interpolate(cells[:, None], image.shape[2:], mode="trilinear")[:, 0]


# Without gradients: a tracer writes down where they are turned off.
@torch.no_grad()
def trace(student: AnyStudent, divisor: Shape, fixed: Shape | None = None) -> Any:
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
