"""All steps of a Glow flow in one differentiable operation, block of voxels by block of voxels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Numbers in a hidden activation of one block. On a CPU, a block then stays in cache; elsewhere it
#: fills a device, and the activations of a block of the paper's flow stay below 3 GB.
BLOCK_NUMBERS_ON_CPU = 2**17
BLOCK_NUMBERS_ELSEWHERE = 2**22

#: Voxels of a block at least; below, the sums over voxels of wide layers lose half their pace.
SHORTEST_BLOCK = 1024

# The gradient of a ReLU in one kernel and in place; a comparison and a product take three.
_relu_backward = torch.ops.aten.threshold_backward.grad_input


class GlowMatrices(NamedTuple):
    """The S steps of a flow as four matrices each.

    A voxel's state is the column (1, c, kept, changed), with kept and changed the two parts of the
    coupling. The constant 1 carries all shifts and biases, so that a step is four products.

    Attributes:
        affine: activation normalisation and linear map in one, (S, d, 1 + d_cond + d).
        first: first layer of the coupling's net, of (1, c, kept), (S, hidden, 1 + d_cond + kept).
        second: second layer, of (1, hidden), (S, hidden, 1 + hidden).
        last: last layer, of (1, hidden), (S, 2 changed, 1 + hidden), the 2 of sigmoid(s + 2) in it.
    """

    affine: Tensor
    first: Tensor
    second: Tensor
    last: Tensor

    @property
    def start(self) -> int:
        """Row of a state where the vector begins, 1 + d_cond."""
        return self.affine.shape[2] - self.affine.shape[1]

    @property
    def split(self) -> int:
        """Row of a state where the changed part begins."""
        return self.first.shape[2]

    @property
    def changed(self) -> int:
        """Length of the changed part."""
        return self.last.shape[1] // 2


class _Activations(NamedTuple):
    """Activations of one block of n voxels: of all steps (K = S), or of the last one (K = 1).

    Attributes:
        states: before the first step and after each, (K + 1, 1 + d_cond + d, n).
        hidden: both hidden layers under a row of ones, (K, 2, 1 + hidden, n).
        scale: of the coupling, (K, changed, n).
        scaled: changed part times scale, (K, changed, n).
    """

    states: Tensor
    hidden: Tensor
    scale: Tensor
    scaled: Tensor

    @classmethod
    def empty(cls, matrices: GlowMatrices, steps: int, voxels: int) -> _Activations:
        """Room for that many steps, with the ones in place."""
        new = matrices.affine.new_empty
        states = new(steps + 1, matrices.affine.shape[2], voxels)
        hidden = new(steps, 2, matrices.second.shape[2], voxels)
        states[:, 0] = 1
        hidden[:, :, 0] = 1
        scale, scaled = (new(steps, matrices.changed, voxels) for _ in range(2))
        return cls(states, hidden, scale, scaled)


def glow_pass(
    y: Tensor, c: Tensor | None, matrices: GlowMatrices, recompute: bool
) -> tuple[Tensor, Tensor]:
    """Maps the vectors of M voxels through all steps.

    Equal to one step after the other, at a fraction of the time: voxels go through all steps in
    blocks that stay in cache, and backward is written out.

    Args:
        y: vectors as columns, (d, M).
        c: conditions as columns, (d_cond, M), or `None`.
        matrices: of the steps.
        recompute: compute the activations of a block again in backward instead of keeping all.

    Returns:
        The mapped vectors (d, M), and the sum of the couplings' log-scales (M,).
    """
    return _GlowPass.apply(y, c, recompute, *matrices)


def plain_glow_pass(y: Tensor, c: Tensor | None, matrices: GlowMatrices) -> tuple[Tensor, Tensor]:
    """The same, voxels all at once and in plain operations: what a tracer can write down."""
    ones = torch.ones_like(y[:1])
    known = ones if c is None else torch.cat([ones, c])
    kept = matrices.split - matrices.start
    logabsdet = torch.zeros_like(y[0])
    for affine, first, second, last in zip(*matrices, strict=True):
        y = affine @ torch.cat([known, y])
        hidden = F.relu(first @ torch.cat([known, y[:kept]]))
        hidden = F.relu(second @ torch.cat([ones, hidden]))
        shift, raw = (last @ torch.cat([ones, hidden])).chunk(2)
        y = torch.cat([y[:kept], torch.sigmoid(raw) * y[kept:] + shift])
        logabsdet = logabsdet + F.logsigmoid(raw).sum(dim=0)
    return y, logabsdet


class _GlowPass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, c: Tensor | None, recompute: bool, *stacks: Tensor
    ) -> tuple[Tensor, Tensor]:
        matrices = GlowMatrices(*stacks)
        keep = any(ctx.needs_input_grad) and not recompute
        z, logabsdet = torch.empty_like(y), y.new_empty(y.shape[1])
        kept: list[Tensor] = []
        activations = None
        for block in _blocks(y, matrices):
            voxels = block.stop - block.start
            if keep or activations is None or activations.states.shape[2] != voxels:
                steps = len(matrices.affine) if keep else 1
                activations = _Activations.empty(matrices, steps, voxels)
            z[:, block], logabsdet[block] = _forward(matrices, activations, y, c, block)
            kept += activations if keep else ()
        ctx.save_for_backward(y, c, *stacks, *kept)
        return z, logabsdet

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Tensor, grad_logabsdet: Tensor) -> tuple[Tensor | None, ...]:
        y, c, *rest = ctx.saved_tensors
        matrices, kept = GlowMatrices(*rest[:4]), rest[4:]
        sums = [torch.zeros_like(stack.mT) for stack in matrices]
        grad_y = torch.empty_like(y)
        grad_c = torch.zeros_like(c) if ctx.needs_input_grad[1] else None
        with torch.autocast(y.device.type, enabled=False):
            for index, block in enumerate(_blocks(y, matrices)):
                if kept:
                    activations = _Activations(*kept[4 * index : 4 * index + 4])
                else:
                    voxels = block.stop - block.start
                    activations = _Activations.empty(matrices, len(matrices.affine), voxels)
                    _forward(matrices, activations, y, c, block)
                grad_y[:, block] = _backward(
                    matrices,
                    activations,
                    grad_z[:, block].clone(),
                    grad_logabsdet[block],
                    GlowMatrices(*sums),
                    None if grad_c is None else grad_c[:, block],
                )
        return grad_y, grad_c, None, *(total.mT for total in sums)


def _blocks(y: Tensor, matrices: GlowMatrices) -> Iterator[slice]:
    """Slices of about equal length that cover all voxels."""
    numbers = BLOCK_NUMBERS_ON_CPU if y.device.type == "cpu" else BLOCK_NUMBERS_ELSEWHERE
    longest = max(SHORTEST_BLOCK, numbers // matrices.second.shape[1])
    voxels = y.shape[1]
    length = max(1, math.ceil(voxels / max(1, math.ceil(voxels / longest))))
    for start in range(0, voxels, length):
        yield slice(start, min(start + length, voxels))


def _forward(
    matrices: GlowMatrices, activations: _Activations, y: Tensor, c: Tensor | None, block: slice
) -> tuple[Tensor, Tensor]:
    """Maps one block, (d, n), with log-scales (n,), and fills the activations."""
    states, hidden, scales, scaleds = activations
    start, split, changed = matrices.start, matrices.split, matrices.changed
    if c is not None:
        states[:, 1:start] = c[:, block]
    states[0, start:] = y[:, block]
    logabsdet = states.new_zeros(states.shape[2])
    parameters = states.new_empty(2 * changed, states.shape[2])
    shift, raw = parameters[:changed], parameters[changed:]
    state = states[0]
    for step, (affine, first, second, last) in enumerate(zip(*matrices, strict=True)):
        slot = step % len(hidden)
        before, state = state, states[(step + 1) % len(states)]
        (h1, h2), scale, scaled = hidden[slot], scales[slot], scaleds[slot]
        torch.mm(affine, before, out=state[start:])
        torch.mm(first, state[:split], out=h1[1:]).relu_()
        torch.mm(second, h1, out=h2[1:]).relu_()
        torch.mm(last, h2, out=parameters)
        torch.sigmoid(raw, out=scale)
        torch.mul(state[split:], scale, out=scaled)
        torch.add(scaled, shift, out=state[split:])
        # Not the logarithm of the scale, which is minus infinity where a small scale is rounded.
        logabsdet += F.logsigmoid(raw).sum(dim=0)
    return state[start:], logabsdet


def _backward(
    matrices: GlowMatrices,
    activations: _Activations,
    grad: Tensor,
    grad_logabsdet: Tensor,
    sums: GlowMatrices,
    grad_c: Tensor | None,
) -> Tensor:
    """Gradient of one block's input, (d, n), from that of its output, which is overwritten.

    Adds the gradients of the matrices to `sums`, which are transposed since a product of few rows
    and many columns with a taller one is faster, and those of the condition to `grad_c`.
    """
    states, hidden, scales, scaleds = activations
    start, split, changed = matrices.start, matrices.split, matrices.changed
    grad_next = torch.empty_like(grad)
    grad_hidden = grad.new_empty(2, matrices.second.shape[1], grad.shape[1])
    grad_parameters = grad.new_empty(2 * changed, grad.shape[1])
    for step in reversed(range(len(matrices.affine))):
        affine, first, second, last = (stack[step] for stack in matrices)
        (h1, h2), (grad_h1, grad_h2), scale = hidden[step], grad_hidden, scales[step]
        grad_kept, grad_changed = grad[: split - start], grad[split - start :]

        grad_parameters[:changed] = grad_changed
        # d(scaled)/d(raw) = scaled (1 - scale), and d(log scale)/d(raw) = 1 - scale.
        grad_raw = torch.addcmul(grad_logabsdet, grad_changed, scaleds[step])
        torch.addcmul(grad_raw, grad_raw, scale, value=-1, out=grad_parameters[changed:])
        grad_changed *= scale

        sums.last[step].addmm_(h2, grad_parameters.T)
        torch.mm(last[:, 1:].T, grad_parameters, out=grad_h2)
        _relu_backward(grad_h2, h2[1:], 0, grad_input=grad_h2)
        sums.second[step].addmm_(h1, grad_h2.T)
        torch.mm(second[:, 1:].T, grad_h2, out=grad_h1)
        _relu_backward(grad_h1, h1[1:], 0, grad_input=grad_h1)
        sums.first[step].addmm_(states[step + 1, :split], grad_h1.T)
        grad_kept.addmm_(first[:, start:].T, grad_h1)
        sums.affine[step].addmm_(states[step], grad.T)
        if grad_c is not None:
            grad_c.addmm_(first[:, 1:start].T, grad_h1).addmm_(affine[:, 1:start].T, grad)
        torch.mm(affine[:, start:].T, grad, out=grad_next)
        grad, grad_next = grad_next, grad
    return grad
