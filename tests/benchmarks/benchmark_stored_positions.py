"""Reading positions of stored maps: channels of a position side by side, beside maps one by one.

    python tests/benchmarks/benchmark_stored_positions.py [--scans 200] [--channels 40]

Files of both layouts lie in a temporary folder. A reading takes 512 positions of every scan, drawn
anew; the layouts take turns. Few scans fit in the caches, where the layout is no matter. The last
line is a flow's scores of whole maps of both layouts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch

from screener_nnu.densities.flow import FlowDensity
from screener_nnu.inference.map_store import MapFiles, positions_of

_CELLS = (27, 30, 24)
_POSITIONS = 512


def main() -> None:
    """Prints medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--channels", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    names = [f"scan_{number:03d}" for number in range(arguments.scans)]
    with tempfile.TemporaryDirectory() as folder:
        last, first = Path(folder) / "last", Path(folder) / "first"
        for name in names:
            maps = rng.normal(size=(1, arguments.channels, *_CELLS)).astype(np.float32)
            for where, values in ((first, maps), (last, np.moveaxis(maps, 1, -1))):
                where.mkdir(exist_ok=True)
                np.save(where / f"{name}.npy", np.ascontiguousarray(values))
        files = MapFiles(last, None, (2, 2, 2))

        def places() -> np.ndarray:
            drawn = rng.choice(np.prod(_CELLS), _POSITIONS, replace=False, shuffle=False)
            return np.sort(drawn)

        def side_by_side() -> None:
            for name in names:
                positions_of(files.read(name)[0], places())

        def one_by_one() -> None:
            for name in names:
                maps = torch.from_numpy(np.load(first / f"{name}.npy", mmap_mode="c"))
                torch.from_numpy(maps.flatten(2).numpy().take(places(), axis=2))

        ways = {"side by side": side_by_side, "one by one": one_by_one}
        _compare("positions, ms a scan", ways, arguments.repeats, len(names))
        flow = FlowDensity(arguments.channels, steps=8, hidden=64).eval()
        ours = files.read(names[0])[0]
        flow.initialise(ours)

        def scores(maps: torch.Tensor) -> Callable[[], object]:
            return torch.no_grad()(lambda: flow.log_prob(maps))

        both = {"side by side": scores(ours), "one by one": scores(ours.contiguous())}
        _compare("flow, ms a scan", both, arguments.repeats, 1)


def _compare(title: str, ways: dict[str, Callable[[], object]], repeats: int, scans: int) -> None:
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            begun = perf_counter()
            way()
            spent[name].append(1e3 * (perf_counter() - begun) / scans)
    middle = {name: median(times) for name, times in spent.items()}
    ours, others = middle.values()
    texts = ", ".join(f"{name} {value:.2f}" for name, value in middle.items())
    print(f"{title}: {texts}; {others / ours:.1f} times")


if __name__ == "__main__":
    main()
