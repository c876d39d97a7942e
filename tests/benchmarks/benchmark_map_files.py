"""Time and size of map files: ISA-L beside zlib's fastest level and SimpleITK, in one run.

    python tests/benchmarks/benchmark_map_files.py MAPS [--repeats 5]

packs every `.nii.gz` of a folder of maps again, in a folder in memory where there is one.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from screener_nnu.preprocessing.compressed_nifti import write_compressed

_MEMORY = Path("/dev/shm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    print("file, MB unpacked, then by way: seconds / those of zlib, MB")
    for path in sorted(arguments.maps.glob("*.nii.gz")):
        image = sitk.ReadImage(str(path))
        voxels = sitk.GetArrayViewFromImage(image)
        with tempfile.TemporaryDirectory(dir=_MEMORY if _MEMORY.is_dir() else None) as folder:
            place = Path(folder) / "map.nii.gz"
            ways: dict[str, Callable[[], object]] = {
                "zlib 1": lambda v=voxels, p=place: p.write_bytes(zlib.compress(v, 1)),
                "SimpleITK": lambda i=image, p=place: sitk.WriteImage(i, str(p), True),
                "ours": lambda i=image, p=place: write_compressed(i, p),
            }
            found = {name: _best(way, arguments.repeats, place) for name, way in ways.items()}
        base = found["zlib 1"][0]
        texts = [f"{name} {t / base:.2f} {size / 1e6:.2f}" for name, (t, size) in found.items()]
        print(f"{path.name}, {voxels.nbytes / 1e6:.0f}: {'; '.join(texts)} ({base:.2f} s)")


def _best(way: Callable[[], object], repeats: int, place: Path) -> tuple[float, int]:
    spent = []
    for _ in range(repeats):
        begun = time.perf_counter()
        way()
        spent.append(time.perf_counter() - begun)
    return min(spent), place.stat().st_size


if __name__ == "__main__":
    main()
