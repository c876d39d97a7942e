"""Compares the flow with the same flow made of nflows' own parts, alternately in one process.

OMP_NUM_THREADS=1 python tests/benchmarks/benchmark_flow.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import MLP
from nflows.transforms import (
    ActNorm,
    AffineCouplingTransform,
    CompositeTransform,
    LULinear,
    Transform,
)
from torch import Tensor, nn

from screener_nnu.densities import FlowDensity


class Setting(NamedTuple):
    """A size of flow; the time is per voxel and step, so that fewer steps do for a deep one."""

    name: str
    dim: int
    hidden: int
    steps: int
    voxels: int


SETTINGS = (
    Setting("cpu", 16, 64, 8, 12_000),
    Setting("mid", 32, 128, 4, 12_000),
    Setting("paper", 32, 512, 2, 8_192),
)


class ConditionShift(Transform):
    """x + A c, which nflows lacks."""

    def __init__(self, features: int, context_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(context_features, features, bias=False)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs + self.linear(context), inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return inputs - self.linear(context), inputs.new_zeros(len(inputs))


class ConditionedMLP(MLP):
    """The MLP of nflows, of the vector and the condition."""

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        return super().forward(inputs if context is None else torch.cat([inputs, context], dim=1))


class SigmoidCoupling(AffineCouplingTransform):
    """The coupling of nflows without the 1e-3 that it adds to the scale."""

    def _scale_and_shift(self, transform_params: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = transform_params.tensor_split([self.num_transform_features], dim=1)
        return torch.sigmoid(raw + 2), shift


def stock_flow(dim: int, cond_dim: int, steps: int, hidden: int, seed: int = 0) -> Flow:
    """The flow of nflows' parts, with no parameter at its start."""
    layers: list[Transform] = []
    for _ in range(steps):
        actnorm = ActNorm(dim)
        actnorm.initialized.fill_(True)
        layers.append(actnorm)
        if cond_dim:
            layers.append(ConditionShift(dim, cond_dim))
        linear = LULinear(dim)
        linear.bias = None  # that of the next normalisation makes it superfluous
        layers.append(linear)
        layers.append(
            SigmoidCoupling(
                torch.arange(dim) >= dim - dim // 2,
                lambda i, o: ConditionedMLP([i + cond_dim], [o], [hidden, hidden]),
            )
        )
    flow = Flow(CompositeTransform(layers), StandardNormal([dim]))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return flow


def counterparts(stock: Flow, ours: FlowDensity) -> list[tuple[nn.Parameter, nn.Parameter]]:
    """Parameters of both that hold the same numbers; the diagonals of U, which do not, are left."""
    layers, pairs = iter(stock._transform._transforms), []
    for step in ours.steps:
        actnorm, linear, coupling = step.layers()
        layer = next(layers)
        pairs += [(layer.log_scale, actnorm.log_scale), (layer.shift, actnorm.shift)]
        if actnorm.context_shift is not None:
            pairs.append((next(layers).linear.weight, actnorm.context_shift.weight))
        layer = next(layers)
        pairs.append((layer.lower_entries, linear.lower_entries))
        pairs.append((layer.upper_entries, linear.upper_entries))
        net = next(layers).transform_net
        theirs = (net._input_layer, *net._hidden_layers, net._output_layer)
        for index, layer in zip((0, 2, 4), theirs, strict=True):
            mine = coupling.transform_net.layers[index]
            pairs += [(layer.weight, mine.weight), (layer.bias, mine.bias)]
    return pairs


def diagonals(stock: Flow, ours: FlowDensity) -> list[tuple[LULinear, nn.Parameter]]:
    """Linear maps of the one and log-diagonals of the other."""
    linears = [layer for layer in stock._transform._transforms if isinstance(layer, LULinear)]
    return [(a, b.layers()[1].log_diagonal) for a, b in zip(linears, ours.steps, strict=True)]


@torch.no_grad()
def same_flow(stock: Flow, dim: int, cond_dim: int, steps: int, hidden: int) -> FlowDensity:
    """Our flow with the weights of the other; its signs and permutations are those of nflows."""
    ours = FlowDensity(dim, cond_dim, steps, hidden).to(next(stock.parameters()))
    for theirs, mine in counterparts(stock, ours):
        mine.copy_(theirs)
    for linear, log_diagonal in diagonals(stock, ours):
        log_diagonal.copy_(linear.upper_diag.log())
    for step in ours.steps:
        step.layers()[1].signs.fill_(1)
        step.layers()[1].permutation.copy_(torch.arange(dim))
    return ours


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one run: of this process on a CPU, where other programs would count else."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def products(setting: Setting, cond_dim: int, device: torch.device, backward: bool) -> None:
    """Nothing but the matrix products of a pass, in blocks that stay in cache."""
    dim, hidden, steps, voxels = setting[1:]
    sizes = [(dim, dim + cond_dim), (hidden, dim - dim // 2 + cond_dim)]
    sizes += [(hidden, hidden), (2 * (dim // 2), hidden)]
    block = min(voxels, 1024 if device.type == "cpu" else 2**22 // hidden)
    for rows, columns in sizes:
        weight = torch.zeros(rows, columns, device=device)
        x, z = (torch.zeros(n, block, device=device) for n in (columns, rows))
        for _ in range(steps * voxels // block):
            torch.mm(weight, x, out=z)
            if backward:
                torch.mm(weight.T, z, out=x)
                torch.mm(z, x.T, out=weight)


@torch.no_grad()
def accuracy(stock: Flow, ours: FlowDensity, y: Tensor, c: Tensor | None) -> tuple[float, ...]:
    """Of flows in float64, which it leaves in float32, on vectors in float32.

    Returns:
        Largest relative difference in float64, and the root mean square error (nats) in float32
        of the one and of the other.
    """
    doubles = y.double(), None if c is None else c.double()
    exact = stock.log_prob(*doubles)
    relative = ((log_prob(ours, *doubles) - exact) / exact).abs().max()
    single = stock.float().log_prob(y, c), log_prob(ours.float(), y, c)
    return float(relative), *(float((v - exact).square().mean().sqrt()) for v in single)


def log_prob(density: FlowDensity, y: Tensor, c: Tensor | None) -> Tensor:
    """Of vectors (M, d) given as our flow takes them."""
    maps = [None if v is None else v.T[None, :, :, None, None] for v in (y, c)]
    return density.log_prob(*maps).flatten()


def compare(setting: Setting, cond_dim: int, device: torch.device, repeats: int) -> None:
    """Prints a line for each pass."""
    name, dim, hidden, steps, voxels = setting
    stock = stock_flow(dim, cond_dim, steps, hidden).double().to(device)
    ours = same_flow(stock, dim, cond_dim, steps, hidden)
    y = torch.randn(voxels, dim, device=device)
    c = torch.randn(voxels, cond_dim, device=device) if cond_dim else None
    difference, their_error, our_error = accuracy(stock, ours, y, c)
    print(
        f"{name}, d_cond {cond_dim}: float64 differs by {difference:.0e} (relative), "
        f"error of float32 (nats) nflows {their_error:.1e}, ours {our_error:.1e}"
    )

    def run(backward: bool, density: nn.Module, evaluate: Callable[..., Tensor]) -> None:
        with torch.set_grad_enabled(backward):
            loss = -evaluate(y, c).mean()
        if backward:
            density.zero_grad()
            loss.backward()

    for backward in (False, True):
        candidates: list[Callable[[], None]] = [
            lambda b=backward: run(b, stock, stock.log_prob),  # type: ignore[misc]
            lambda b=backward: run(b, ours, lambda y, c: log_prob(ours, y, c)),  # type: ignore[misc]
            lambda b=backward: products(setting, cond_dim, device, b),  # type: ignore[misc]
        ]
        times = [[seconds(work, device) for work in candidates] for _ in range(repeats + 1)][1:]
        nflows, own, bare = (median(column) for column in zip(*times, strict=True))
        unit = 1e9 / (voxels * steps)
        print(
            f"  {'with backward' if backward else 'forward':13}  nflows {nflows * unit:6.0f}, "
            f"ours {own * unit:6.0f}, products alone {bare * unit:6.0f} ns per voxel and step; "
            f"nflows / ours = {nflows / own:.2f}, at most {nflows / bare:.2f}"
        )


def main() -> None:
    """Prints how close and how fast the flows are; the products alone bound what is possible."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--voxels", type=int, help="instead of each size's own number")
    parser.add_argument("--steps", type=int, help="instead of each size's own number")
    arguments = parser.parse_args()
    for setting in SETTINGS:
        setting = setting._replace(
            voxels=arguments.voxels or setting.voxels, steps=arguments.steps or setting.steps
        )
        for cond_dim in (setting.dim, 0):
            compare(setting, cond_dim, torch.device(arguments.device), arguments.repeats)


if __name__ == "__main__":
    main()
