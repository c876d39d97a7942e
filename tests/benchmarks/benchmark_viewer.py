"""Bytes and seconds of a page: `python tests/benchmarks/benchmark_viewer.py [page.html]`.

A body of noisy tissue with bone and lung, 512 x 512 x 400 voxels; noise is what fills a page.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from screener_nnu.viewer.write import write_viewer

SHAPE, SPACING = (400, 512, 512), (0.85, 0.85, 1.5)


def make_scan(noise: float) -> tuple[sitk.Image, sitk.Image, sitk.Image]:
    """Scan with noise of so many HU, map and body mask."""
    generator = np.random.default_rng(1)
    y, x = np.mgrid[-1 : 1 : SHAPE[1] * 1j, -1 : 1 : SHAPE[2] * 1j]
    body = (x / 0.85) ** 2 + (y / 0.6) ** 2 < 1
    lung = ((np.abs(x) - 0.4) / 0.28) ** 2 + (y / 0.4) ** 2 < 1
    bone = x**2 + ((y - 0.4) / 0.8) ** 2 < 0.012
    plane = np.where(body, 40.0, -1000.0)
    plane[lung], plane[bone] = -850.0, 500.0
    hu = np.empty(SHAPE, np.int16)
    for z in range(SHAPE[0]):
        # Reconstruction leaves noise that is correlated over about a voxel.
        grain = ndimage.gaussian_filter(generator.standard_normal(SHAPE[1:]), 0.6)
        hu[z] = np.clip(plane + noise / grain.std() * grain, -1024, 3000)
    coarse = [max(2, int(n * s / 4.5)) for n, s in zip(SHAPE, SPACING[::-1], strict=True)]
    small = generator.gamma(2.0, 4.0, coarse).astype(np.float32)
    score = np.empty(SHAPE, np.float32)
    factors = np.divide(SHAPE, coarse)
    score[:] = ndimage.zoom(small, factors, order=1)[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    mask = np.broadcast_to(body, SHAPE).astype(np.uint8)
    images = tuple(sitk.GetImageFromArray(np.ascontiguousarray(a)) for a in (hu, score, mask))
    for image in images:
        image.SetSpacing(SPACING)
    return images[0], images[1], images[2]


def main() -> None:
    page = Path(sys.argv[1] if len(sys.argv) > 1 else "benchmark_viewer.html")
    for noise in (10.0, 20.0, 40.0):
        images = make_scan(noise)
        start = time.process_time()
        shown = write_viewer(page, "benchmark", *images)
        seconds, grid = time.process_time() - start, shown.volumes.grid
        spacing = " x ".join(f"{mm:.2f}" for mm in grid.spacing)
        print(
            f"noise {noise:.0f} HU: {page.stat().st_size / 1e6:.1f} MB, "
            f"{seconds:.0f} s of one core, {grid.size} voxels of {spacing} mm",
            flush=True,
        )


if __name__ == "__main__":
    main()
