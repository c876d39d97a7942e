"""Time and memory of importing pictures, and of a second run that finds all of them done.

python tests/benchmarks/benchmark_picture_import.py --pictures 2000
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from screener_nnu.importing.contents import find_pictures
from screener_nnu.importing.pictures import import_pictures
from screener_nnu.importing.request import ImportRequest
from screener_nnu.preprocessing.pictures import write_picture


def main() -> None:
    """Prints a line a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--channels", type=int, choices=(1, 3), default=1)
    parser.add_argument("-np", dest="processes", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["nnUNet_raw"] = str(root / "raw")
        os.environ["nnUNet_preprocessed"] = str(root / "preprocessed")
        os.environ["nnUNet_results"] = str(root / "results")
        shape = (arguments.channels, arguments.side, arguments.side)
        generator = np.random.default_rng(1)
        for index in range(arguments.pictures):
            pixels = generator.integers(0, 256, shape, dtype=np.uint8)
            write_picture(pixels, root / "in" / f"{index // 1000}" / f"{index:06d}.png")
        request = ImportRequest(root / "in", 610, "Many", processes=arguments.processes)
        for run in ("first", "second"):
            start = time.perf_counter()
            found = find_pictures(request.source)
            assert found is not None
            rows = sum(1 for _ in import_pictures(request, found))
            seconds = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{run} run: {rows} pictures, {seconds:.1f} s, {peak:.0f} MiB at most")


if __name__ == "__main__":
    main()
