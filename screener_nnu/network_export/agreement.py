"""Whether a written graph gives the scores of the student."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from screener_nnu.descriptors.base import EQUALISED
from screener_nnu.errors import ScreenerError
from screener_nnu.network_export.graph import AnyStudent, ScoreNetwork
from screener_nnu.plans import Shape

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


def _noise_in_air(
    rng: np.random.Generator, shape: tuple[int, ...], equalised: bool
) -> torch.Tensor:
    """Noise in a ball, and like in a scan the same value all around it."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape[2:]], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    image = torch.from_numpy(np.where(inside, rng.normal(0, 1, shape), -2.5)).float()
    return (image / 5 + 0.5).clamp(0, 1) if equalised else image


@torch.no_grad()
def check_agreement(
    network: nn.Module,
    student: AnyStudent,
    divisor: Shape,
    fixed: Shape | None,
    name: str,
    std: float,
) -> Agreement:
    """Compares a written graph with the student in float32.

    Args:
        network: the graph, images (B, 1, D, H, W) to scores (B, D, H, W).
        student: on the CPU.
        divisor, fixed: see `trace`.
        name: of the format, for the message.
        std: deviation of the training scores, in nats.

    Raises:
        ScreenerError: they differ.
    """
    exact = ScoreNetwork(student)
    shapes: list[tuple[int, ...]]
    if fixed is not None:
        shapes = [(1, 1, *fixed)]
    else:
        z, y, x = divisor
        large = (max(3, round(_EDGE / n)) * n for n in divisor)
        shapes = [(1, 1, *large), (3, 1, 2 * z, 4 * y, 2 * x)]
    rng = np.random.default_rng(0)
    worst = 0.0
    for shape in shapes:
        image = _noise_in_air(rng, shape, student.reads == EQUALISED)
        expected = exact(image)
        found = network(image)
        if found.shape != expected.shape or found.dtype != torch.float32:
            raise ScreenerError(f"{name}: output {found.dtype} {found.shape}, not {expected.shape}")
        worst = max(worst, float((found - expected).abs().max()))
    relative = worst / std
    if not relative <= _TOLERANCE:
        raise ScreenerError(
            f"{name}: scores differ from the student's by up to {worst:.3g} nats, so nothing was "
            "written; another version of torch or onnxruntime may do better"
        )
    return Agreement(shapes, worst, relative)
