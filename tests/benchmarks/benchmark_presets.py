"""What the networks of each preset cost on this device, before anything is trained.

    python tests/benchmarks/benchmark_presets.py --presets cpu balanced [--width 8]

For thin-slice CT of the trunk it plans each preset, builds its UNet with random weights, and takes
the time of one tile without gradients and of one crop with them (best of `--repeats`). From the
first follows the time of the networks for a body of 400 x 300 x 400 mm (z, y, x) in tiles that
overlap by half: the student runs once a tile, the teacher twice, its density not included.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from screener_nnu.inference.tiles import Tiling
from screener_nnu.networks.unet import build_unet, low_precision
from screener_nnu.planners.architecture import plan_architecture
from screener_nnu.planners.memory import Fit, fit_to_memory
from screener_nnu.planners.presets import PRESETS
from screener_nnu.plans import VOLUMES, Shape, StockPlan

SPACING = (1.5, 0.8, 0.8)
BODY_MM = (400.0, 300.0, 400.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["cpu", "balanced"])
    parser.add_argument("--width", type=int, help="channels of the first stage")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    print("| preset | spacing | tile | s a tile | tiles | student s | teacher s | s a crop |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.presets:
        print(_row(name, arguments.width, device, arguments.repeats), flush=True)


def _row(name: str, width: int | None, device: torch.device, repeats: int) -> str:
    preset = PRESETS[name]
    preset = replace(preset, base_width=width) if width else preset
    fit = fit_to_memory(preset, SPACING, BODY_MM, preset.memory_gb)
    architecture = plan_architecture(fit.spacing, fit.patch, fit.preset)
    plan = StockPlan({"configurations": {VOLUMES: {"architecture": architecture}}})
    network = build_unet(plan, 1, 1, seed=0).to(device)
    tiling = _tiles_of_body(fit, plan.divisor)
    tiles = len(tiling.starts)
    forward = _seconds(lambda: _forward(network, tiling.tile, device), device, repeats)
    training = _seconds(lambda: _step(network, fit.patch, device), device, repeats)
    spacing = " x ".join(f"{s:.2f}" for s in fit.spacing)
    shape = " x ".join(map(str, tiling.tile))
    return (
        f"| {name} | {spacing} | {shape} | {forward:.2f} | {tiles} | {tiles * forward:.0f} "
        f"| {2 * tiles * forward:.0f} | {training:.2f} |"
    )


def _tiles_of_body(fit: Fit, divisor: Shape) -> Tiling:
    z, y, x = (round(mm / s) for mm, s in zip(BODY_MM, fit.spacing, strict=True))
    factor = fit.preset.tile_factor
    largest = (factor * fit.patch[0], factor * fit.patch[1], factor * fit.patch[2])
    return Tiling.of((z, y, x), largest, 0.5, np.array(divisor))


@torch.no_grad()
def _forward(network: torch.nn.Module, shape: Shape, device: torch.device) -> None:
    with low_precision(device, True):
        network(torch.zeros(1, 1, *shape, device=device))


def _step(network: torch.nn.Module, shape: Shape, device: torch.device) -> None:
    with low_precision(device, True):
        loss = network(torch.ones(1, 1, *shape, device=device)).float().square().mean()
    loss.backward()


def _seconds(work: Callable[[], None], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])  # the first one warms up


if __name__ == "__main__":
    main()
