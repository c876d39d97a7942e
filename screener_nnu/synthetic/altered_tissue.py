"""What becomes of the tissue inside a region of the family `altered`.

All of it is made of the region's own values but for the mean brightness of the star: nothing comes
from another place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from screener_nnu.synthetic.blobs import Blob
from screener_nnu.synthetic.fields import FloatArray, Triple, capsule, occupancy, smooth_noise

# In parts of the window: standard deviation of the noise, and contrast of a star.
_ROUGHNESS = (0.05, 0.12)
_CONTRAST = (0.10, 0.25)
# In parts of the region's radius: width of the blur, reach of the local mean; of a star the reach
# of the mean that its texture is about, core, rays.
_BLUR = (0.15, 0.35)
_MEAN = 0.5
_TEXTURE = 0.2
_CORE = 0.25
_LENGTH = (0.7, 1.0)
_RAY = 0.08
_RAYS = (6, 14)


@dataclass(frozen=True)
class Surroundings:
    """What an alteration knows of the scan.

    Attributes:
        spacing: voxel size in mm (z, y, x).
        width: of the window, in the units of the image.
        tissue: median of the body.
    """

    spacing: Triple
    width: float
    tissue: float


#: (values of the box (z, y, x), where, of which scan, source of randomness) -> values.
Alteration = Callable[[FloatArray, Blob, Surroundings, np.random.Generator], FloatArray]


def blurred(
    before: FloatArray, blob: Blob, scan: Surroundings, rng: np.random.Generator
) -> FloatArray:
    """Tissue without its fine structure: a Gaussian of 0.15 to 0.35 radii, at least one voxel."""
    sigma = blob.radius * rng.uniform(*_BLUR)
    voxels = [max(sigma / step, 1.0) for step in scan.spacing]
    return np.asarray(ndimage.gaussian_filter(before, voxels, mode="nearest"), np.float32)


def roughened(
    before: FloatArray, blob: Blob, scan: Surroundings, rng: np.random.Generator
) -> FloatArray:
    """Noise of one to two and a half voxels is added, of 5 to 12 % of the window.

    It lies near the coarser noise that the method `denoising` learns to take away.
    """
    axes = [
        (np.arange(n) * step).astype(np.float32)
        for n, step in zip(before.shape, scan.spacing, strict=True)
    ]
    noise = smooth_noise(rng, axes, min(scan.spacing) * rng.uniform(1.0, 2.5))
    return before + np.float32(scan.width * rng.uniform(*_ROUGHNESS)) * noise


def mirrored(
    before: FloatArray, blob: Blob, scan: Surroundings, rng: np.random.Generator
) -> FloatArray:
    """The region's content, mirrored about its centre along one axis."""
    axis = int(rng.choice([k for k, n in enumerate(before.shape) if n > 1] or [2]))
    first, size = blob.box[axis].start, before.shape[axis]
    centre = blob.centre[axis] / scan.spacing[axis] - first
    # Whole voxels: interpolation would blur.
    places = np.clip(round(2 * centre) - np.arange(size), 0, size - 1)
    return np.take(before, places, axis=axis)


def inverted(
    before: FloatArray, blob: Blob, scan: Surroundings, rng: np.random.Generator
) -> FloatArray:
    """What is brighter than the mean around it becomes as much darker; no draw is made."""
    inside = blob.weight > 0
    mean = _local_mean(before, inside, [_MEAN * blob.radius / step for step in scan.spacing])
    return np.where(inside, 2 * mean - before, before).astype(np.float32)


def _local_mean(before: FloatArray, inside: np.ndarray, sigma: Sequence[float]) -> FloatArray:
    """Gaussian means (z, y, x) over the voxels inside a region; `sigma` is in voxels."""
    known = inside.astype(np.float32)
    weight = ndimage.gaussian_filter(known, sigma, mode="constant")
    total = ndimage.gaussian_filter(before * known, sigma, mode="constant")
    return np.asarray(total / np.maximum(weight, np.float32(1e-3)), np.float32)


def spiculated(
    before: FloatArray, blob: Blob, scan: Surroundings, rng: np.random.Generator
) -> FloatArray:
    """A star with thin rays: the body's median in other tissue, darker or brighter in its own.

    What the tissue differs by from its mean within a fifth of the radius stays: a star is not of
    one value, as the painted kind `constant` is.
    """
    contrast = scan.width * rng.uniform(*_CONTRAST) * rng.choice([-1.0, 1.0])
    local = float(np.median(before[blob.weight > 0.5]))
    own = abs(local - scan.tissue) < _CONTRAST[0] * scan.width
    value = np.float32(scan.tissue + contrast if own else scan.tissue)
    axes = [
        (np.arange(part.start, part.stop) * step - middle).astype(np.float32)
        for part, step, middle in zip(blob.box, scan.spacing, blob.centre, strict=True)
    ]
    # A single slice, as of a picture, has its rays in its own plane.
    flat = [len(axis) == 1 for axis in axes]
    points = np.meshgrid(*axes, indexing="ij")
    finest = min(step for step, one in zip(scan.spacing, flat, strict=True) if not one)
    distance = np.sqrt(sum(p**2 for p in points)) - np.float32(_CORE * blob.radius)
    for _ in range(int(rng.integers(_RAYS[0], _RAYS[1] + 1))):
        direction = np.where(flat, 0.0, rng.standard_normal(3))
        end = direction / np.linalg.norm(direction) * blob.radius * rng.uniform(*_LENGTH)
        ray = capsule(points, (0.0, 0.0, 0.0), end)
        distance = np.minimum(distance, ray - np.float32(max(_RAY * blob.radius, 0.6 * finest)))
    share = occupancy(np.asarray(distance, np.float32), finest)
    inside = blob.weight > 0
    width = [max(_TEXTURE * blob.radius / step, 1.0) for step in scan.spacing]
    texture = np.where(inside, before - _local_mean(before, inside, width), np.float32(0))
    return before + share * (value + texture - before)


#: Alterations by kind.
ALTERATIONS: dict[str, Alteration] = {
    "blurred": blurred,
    "roughened": roughened,
    "mirrored": mirrored,
    "inverted": inverted,
    "spiculated": spiculated,
}
