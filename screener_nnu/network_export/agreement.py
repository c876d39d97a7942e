"""Whether a written graph gives the scores of the student."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.network_export.graph import INPUT_NAME
from screener_nnu.plans import Shape
from screener_nnu.scoring.student import Student

Runner = Callable[[np.ndarray], np.ndarray]

# Largest difference, in standard deviations of the score. Float32 sums in another order differ by
# some 1e-5 of it; a wrong layer by about one.
_TOLERANCE = 1e-3
# Edge (voxels) of the larger test image: sums over few voxels hide how they are added up.
_EDGE = 64


@dataclass(frozen=True)
class Agreement:
    """Differences from the student in float32 on noise in air.

    Attributes:
        shapes: of the images (B, 1, D, H, W).
        max_abs_nats: largest difference.
        max_relative: the same in standard deviations of the training scores.
    """

    shapes: list[tuple[int, ...]]
    max_abs_nats: float
    max_relative: float


def onnx_runner(content: bytes) -> Runner:
    """Runs an ONNX file on the CPU: (B, 1, D, H, W) -> (B, D, H, W), float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {INPUT_NAME: image})[0]


def torch_export_runner(content: bytes) -> Runner:
    """Runs a `.pt2` file *of our own making*: torch reads some parts of strangers' with pickle."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(image: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(image)).numpy()

    return run


def _noise_in_air(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise in a ball, and like in a scan the same value all around it."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[2:]], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    return np.where(inside, rng.normal(0, 1, shape), -2.5).astype(np.float32)


def check_agreement(
    run: Runner, student: Student, divisor: Shape, fixed: Shape | None, name: str
) -> Agreement:
    """Compares a written graph with the student in float32.

    Args:
        run: the graph.
        student: on the CPU.
        divisor, fixed: see `trace`.
        name: of the format, for the message.

    Raises:
        ScreenerError: they differ.
    """
    exact = Student(student.network, student.score_mean, student.score_std)
    shapes: list[tuple[int, ...]]
    if fixed is not None:
        shapes = [(1, 1, *fixed)]
    else:
        z, y, x = divisor
        large = (max(3, round(_EDGE / n)) * n for n in divisor)
        shapes = [(1, 1, *large), (3, 1, 2 * z, 4 * y, 2 * x)]
    rng = np.random.default_rng(0)
    worst, unused = 0.0, torch.zeros(1, 3)
    for shape in shapes:
        image = _noise_in_air(rng, shape)
        expected = exact(torch.from_numpy(image), unused, unused).numpy()
        found = run(image)
        if found.shape != expected.shape or found.dtype != np.float32:
            raise ScreenerError(f"{name}: output {found.dtype} {found.shape}, not {expected.shape}")
        worst = max(worst, float(np.abs(found - expected).max()))
    relative = worst / student.score_std
    if not relative <= _TOLERANCE:
        raise ScreenerError(
            f"{name}: scores differ from the student's by up to {worst:.3g} nats, so nothing was "
            "written; another version of torch or onnxruntime may do better"
        )
    return Agreement(shapes, worst, relative)
