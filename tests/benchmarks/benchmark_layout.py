"""Forward and backward of a plan's UNet with weights channels first and last, in turn.

    python tests/benchmarks/benchmark_layout.py 901 [PLANS] [--repeats 5]

The ratio of the fastest steps of both; above 1, channels last is faster.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from screener_nnu.networks.unet import build_unet
from screener_nnu.paths import plan_file, set_default_folders
from screener_nnu.plans import read_plan

#: Edge of the crops, crops of a step, and whether it is one of training.
STEPS = ((40, 4, True), (64, 1, True), (80, 1, False))


def seconds(network: nn.Module, images: torch.Tensor, training: bool) -> float:
    """Of one step."""
    begun = time.process_time()
    if training:
        network(images).square().mean().backward()
        network.zero_grad(set_to_none=True)
    else:
        with torch.inference_mode():
            network(images)
    return time.process_time() - begun


def main() -> None:
    """Prints a line a kind of step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("plans", nargs="?", default="ScreenerPlans")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    set_default_folders()
    plan = read_plan(plan_file(arguments.dataset, arguments.plans))
    channels = plan.settings.descriptor.channels
    first, last = (build_unet(plan, 1, channels, seed=0) for _ in range(2))
    last = last.to(memory_format=torch.channels_last_3d)
    print(f"processor: {torch.backends.cpu.get_cpu_capability()}")
    for edge, crops, training in STEPS:
        images = torch.randn(crops, 1, edge, edge, edge)
        pairs = [
            (seconds(first, images, training), seconds(last, images, training))
            for _ in range(arguments.repeats)
        ]
        best = [min(of_one) for of_one in zip(*pairs, strict=True)]
        what = "training" if training else "prediction"
        print(
            f"{crops} x {edge}^3, {what}: {best[0]:.2f} s, {best[1]:.2f} s: {best[0] / best[1]:.2f}"
        )


if __name__ == "__main__":
    main()
