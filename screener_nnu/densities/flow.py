"""Normalising flow in the manner of Glow, voxel by voxel."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.densities.glow import GlowStep, stacked_matrices
from screener_nnu.densities.glow_pass import glow_pass, plain_glow_pass
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import DensitySettings


class FlowDensity(ConditionalDensity):
    """Glow flow on the vector of each voxel, with base N(0, I).

    References:
        Kingma and Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, NeurIPS 2018
        (https://arxiv.org/abs/1807.03039).
        Goncharov et al., Modeling the Density of Pixel-level Self-supervised Embeddings for
        Unsupervised Pathology Segmentation in Medical CT, ICLR 2026, the conditional flow
        (https://arxiv.org/abs/2502.08321).

    Args:
        dim: channels d of the descriptor map, at least 2.
        cond_dim: channels d_cond of the condition map; 0 for an unconditional density.
        steps: of the flow.
        hidden: width of the two hidden layers of each coupling.
        checkpointing: compute the activations again in the backward pass, a block of voxels at a
            time; training then needs memory for one block, and up to a third more time.

    Raises:
        ScreenerError: d < 2, which leaves a coupling nothing to split, or no steps.
    """

    # It draws its start by factorising matrices.
    builds_on_meta = False

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        steps: int = 64,
        hidden: int = 512,
        checkpointing: bool = False,
    ) -> None:
        """Builds the steps; `initialise` then normalises their activations."""
        super().__init__(dim, cond_dim)
        if dim < 2 or steps < 1:
            raise ScreenerError(f"a flow needs dim >= 2 and steps >= 1, not {dim} and {steps}")
        self.steps = nn.ModuleList(GlowStep(dim, cond_dim, hidden) for _ in range(steps))
        self.checkpointing = checkpointing

    @classmethod
    def least_numbers(cls, settings: DensitySettings) -> int:
        """Each step has a matrix of hidden x hidden."""
        return settings.flow_steps * settings.hidden**2

    @classmethod
    def options(cls, settings: DensitySettings) -> dict[str, Any]:
        """Width and steps, which a plan has among the settings of all densities."""
        return super().options(settings) | {
            "hidden": settings.hidden,
            "steps": settings.flow_steps,
            # The paper's flow would keep some 30 GB of activations.
            "checkpointing": settings.flow_steps * settings.hidden >= 16 * 512,
        }

    def encode(self, y: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps vectors (M, d), given (M, d_cond), to the base, (M, d), and log|det|, (M,)."""
        matrices, constant = stacked_matrices(list(self.steps))  # type: ignore[arg-type]
        columns = None if c is None else c.T
        if torch.compiler.is_compiling():
            z, logabsdet = plain_glow_pass(y.T, columns, matrices)
        else:
            z, logabsdet = glow_pass(y.T, columns, matrices, recompute=self.checkpointing)
        return z.T, logabsdet + constant

    def _log_prob(self, y: Tensor, c: Tensor | None) -> Tensor:
        z, logabsdet = self.encode(_vectors(y), None if c is None else _vectors(c))
        base = -0.5 * (z.square().sum(dim=1) + self.dim * math.log(2 * math.pi))
        return (base + logabsdet).view(y.shape[0], *y.shape[2:])

    def _initialise(self, y: Tensor, c: Tensor | None) -> None:
        vectors, context = _vectors(y), None if c is None else _vectors(c)
        for step in self.steps:
            vectors = step.initialise(vectors, context)  # type: ignore[operator]


def _vectors(maps: Tensor) -> Tensor:
    """(B, k, D, H, W) -> (B D H W, k), stored by columns: no copy of one contiguous map."""
    return maps.movedim(1, 0).reshape(maps.shape[1], -1).contiguous().T
