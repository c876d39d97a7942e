"""What the scanner adds: blur of its point spread and noise with the spectrum of CT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from screener_nnu.synthetic.fields import FloatArray, Triple


@dataclass(frozen=True)
class Scanner:
    """Image quality of one scan.

    Attributes:
        noise_hu: standard deviation of the noise in the middle of the body.
        blur_mm: standard deviation of the in-plane point spread.
        cutoff: frequency in cycles per mm at which the kernel rolls off (sharper when larger).
        slice_blur_mm: standard deviation of the slice sensitivity.
    """

    noise_hu: float
    blur_mm: float
    cutoff: float
    slice_blur_mm: float


def draw_scanner(rng: np.random.Generator) -> Scanner:
    """Draws dose and reconstruction kernel: quiet and smooth to noisy and sharp."""
    return Scanner(
        noise_hu=float(rng.uniform(7, 26)),
        blur_mm=float(rng.uniform(0.7, 1.4)),
        cutoff=float(rng.uniform(0.09, 0.18)),
        slice_blur_mm=float(rng.uniform(0.8, 2.0)),
    )


def blur(image: FloatArray, spacing: Triple, scanner: Scanner) -> FloatArray:
    """Applies the point spread of the scan, in HU."""
    sigma = (scanner.slice_blur_mm, scanner.blur_mm, scanner.blur_mm)
    voxels = [s / step for s, step in zip(sigma, spacing, strict=True)]
    return ndimage.gaussian_filter(image, voxels, truncate=3.0)


def ct_noise(
    rng: np.random.Generator, shape: tuple[int, ...], spacing: Triple, scanner: Scanner
) -> FloatArray:
    """Noise of filtered back projection: unit variance, little power at low in-plane frequencies.

    White noise is filtered in plane with the square root of |f| exp(-(f / cutoff)^2), the ramp
    filter with an apodised kernel (Riederer et al., Phys Med Biol 1978), and blurred over slices.

    Args:
        rng: source of randomness.
        shape: (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        scanner: image quality.

    Returns:
        Noise of shape (Z, Y, X) with standard deviation 1.
    """
    white = rng.standard_normal(shape, dtype=np.float32)
    white = ndimage.gaussian_filter1d(white, scanner.slice_blur_mm / spacing[0], axis=0)
    fy = np.fft.fftfreq(shape[1], spacing[1])[:, None]
    fx = np.fft.rfftfreq(shape[2], spacing[2])[None]
    frequency = np.hypot(fy, fx)
    transfer = np.sqrt(frequency * np.exp(-((frequency / scanner.cutoff) ** 2)))
    noise = np.fft.irfft2(np.fft.rfft2(white) * transfer, s=shape[1:])
    return np.asarray(noise / noise.std(), np.float32)


def scan(
    image: FloatArray,
    depth: FloatArray,
    spacing: Triple,
    scanner: Scanner,
    rng: np.random.Generator,
) -> FloatArray:
    """Turns painted HU into a scan: blur, noise that grows with depth, the range of int16 CT.

    Args:
        image: painted HU, (Z, Y, X).
        depth: depth under the skin in mm, zero outside, (Z, Y, X).
        spacing: voxel size in mm (z, y, x).
        scanner: image quality.
        rng: source of randomness.

    Returns:
        HU in [-1024, 3071], float32.
    """
    # Rays through the middle of the body are attenuated most.
    level = scanner.noise_hu * (0.4 + 0.6 * np.minimum(depth / 70, 1))
    noise = ct_noise(rng, image.shape, spacing, scanner)
    scanned = blur(image, spacing, scanner) + level.astype(np.float32) * noise
    return np.clip(scanned, -1024, 3071)
