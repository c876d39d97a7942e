"""Measures the mean shift: seconds against the operations of exact neighbours.

On the CPU, seconds are processor time of all threads.

An iteration takes 2 n^2 d operations for n rows that move among each other, and 2 n d for each
query. Weights and means come on top.

python tests/benchmarks/benchmark_mean_shift.py --threads 1
python tests/benchmarks/benchmark_mean_shift.py --device cuda
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from screener_nnu.densities.density_weights import density_weights
from screener_nnu.densities.mean_shift import MeanShiftSettings, ReferenceShift

#: What is measured: rows, their width and the queries that follow.
SIZES = {
    "images": (4000, 512, 1000),
    "many images": (10_000, 512, 1000),
    "bank": (10_000, 32, 32_768),
    "large bank": (50_000, 32, 32_768),
}


@dataclass(frozen=True)
class Clock:
    """Prints lines of a Markdown table.

    Attributes:
        device: waited for before the clock is read.
    """

    device: torch.device

    def __call__(self, title: str, operations: float, work: Callable[[], object]) -> None:
        """Prints seconds and rate of a piece of work."""
        start = self._now()
        work()
        seconds = self._now() - start
        rate = f"{operations / seconds / 1e9:.1f}" if operations else "-"
        print(f"| {title} | {operations / 1e12:.3f} | {seconds:.2f} | {rate} |", flush=True)

    def _now(self) -> float:
        if self.device.type != "cuda":
            # Others may compute beside.
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


def measure(name: str, clock: Clock) -> None:
    """Prints the times of weights, fit and queries of one size."""
    count, width, asked = SIZES[name]
    generator = torch.Generator().manual_seed(0)

    def rows_of(number: int) -> Tensor:
        # Some hundred clusters: neighbours are not equally far, as they are in noise.
        centres = torch.randn(200, width, generator=torch.Generator().manual_seed(1))
        chosen = torch.randint(200, (number,), generator=generator)
        noise = torch.randn(number, width, generator=generator)
        return (centres[chosen] + 0.5 * noise).to(clock.device)

    rows, queries = rows_of(count), rows_of(asked)
    # As many steps as there are at most, so that operations are known.
    settings = MeanShiftSettings(tolerance=0.0)
    shift = ReferenceShift(settings).to(clock.device)
    steps = settings.iterations
    size = f"{name}, {count} x {width}"
    clock(f"{size}: weights", 0, lambda: density_weights(rows, settings))
    clock(f"{size}: weights and shift", 2 * steps * count**2 * width, lambda: shift.fit(rows))
    work = 2 * steps * count * width * asked
    clock(f"{size}: {asked} queries", work, lambda: shift(queries))


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["images", "bank"])
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    torch.ones(8, 8, device=device).double() @ torch.ones(8, 8, device=device).double()
    print("| what | TFLOP of neighbours | seconds | GFLOP/s |")
    print("|---|---|---|---|")
    for name in arguments.sizes:
        measure(name, Clock(device))


if __name__ == "__main__":
    main()
