"""Compares densities that are fitted in one pass with the flow of a preset, in one process.

OMP_NUM_THREADS=1 python tests/benchmarks/benchmark_fitted_densities.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from screener_nnu.densities import DENSITIES, ConditionalDensity, FittedDensity, FlowDensity
from screener_nnu.densities.full_gaussian import FullGaussianDensity
from screener_nnu.planners.presets import PRESETS, Preset, preset_named


class Candidate(NamedTuple):
    """A density, the width of its condition, and how long it took to fit."""

    name: str
    density: ConditionalDensity
    cond_dim: int
    fit_seconds: float


def rows(count: int, dim: int, seed: int) -> Tensor:
    """Correlated rows with standard deviation 1."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=torch.Generator().manual_seed(99))
    mixed = torch.randn(count, dim, generator=generator) @ mixing
    return mixed / mixed.std(dim=0)


def as_map(vectors: Tensor) -> Tensor:
    """(M, k) -> (1, k, M, 1, 1)."""
    return vectors.T.contiguous()[None, :, :, None, None]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Of one run: of this process on a CPU, where other programs would count else."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def fitted(density: FittedDensity, name: str, count: int, device: torch.device) -> Candidate:
    """The density after a fit to so many rows."""
    density = density.to(device).eval()
    y = rows(count, density.dim, 0).to(device)
    c = rows(count, density.cond_dim, 1).to(device) if density.cond_dim else None
    taken = seconds(lambda: density.fit(y, c, torch.Generator().manual_seed(0)), device)
    return Candidate(name, density, density.cond_dim, taken)


def candidates(
    preset: Preset, names: list[str], count: int, device: torch.device
) -> list[Candidate]:
    """The flow of the preset first, then every fitted density."""
    dim = preset.channels
    flow = FlowDensity(dim, dim, preset.flow_steps, preset.hidden).to(device).eval()
    out = [Candidate(f"flow of {preset.name}", flow, dim, 0.0)]
    for name in names:
        density = DENSITIES[name](dim)
        assert isinstance(density, FittedDensity)
        out.append(fitted(density, name, count, device))
    if "full_gaussian" in names:
        out.append(fitted(FullGaussianDensity(dim, 3), "full_gaussian, 4^3 bins", count, device))
        many = FullGaussianDensity(dim, 3, bins=(12, 12, 12))
        out.append(fitted(many, "full_gaussian, 12^3 bins", count, device))
    return out


@torch.no_grad()
def main() -> None:
    """Prints microseconds a voxel, and how many times as long as the flow each takes."""
    known = sorted(name for name, kind in DENSITIES.items() if kind.fitted)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="cpu", choices=sorted(PRESETS))
    parser.add_argument("--densities", nargs="+", default=known, choices=known)
    parser.add_argument("--rows", type=int, default=10_000, help="that densities are fitted to")
    parser.add_argument("--voxels", type=int, default=32_768)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device, preset = torch.device(arguments.device), preset_named(arguments.preset)
    measured = candidates(preset, arguments.densities, arguments.rows, device)
    y = as_map(rows(arguments.voxels, preset.channels, 2).to(device))
    conditions = {
        width: as_map(rows(arguments.voxels, width, 3).to(device)) if width else None
        for width in {candidate.cond_dim for candidate in measured}
    }
    times: list[list[float]] = [[] for _ in measured]
    for _ in range(arguments.repeats + 1):
        for candidate, taken in zip(measured, times, strict=True):
            c = conditions[candidate.cond_dim]
            taken.append(seconds(lambda d=candidate.density, c=c: d.log_prob(y, c), device))  # type: ignore[misc]
    middle = [median(taken[1:]) for taken in times]
    for candidate, value in zip(measured, middle, strict=True):
        print(
            f"{candidate.name:24} {value / arguments.voxels * 1e6:8.2f} us a voxel, "
            f"{value / middle[0]:6.2f} times the flow; fitted in {candidate.fit_seconds:.2f} s"
        )


if __name__ == "__main__":
    main()
