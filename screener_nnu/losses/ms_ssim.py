"""Structural similarity of images at one scale and at several, with maps, in 2D and 3D.

Images are (B, C, D, H, W); D = 1 is a picture, and no window reaches along it.

References:
    Wang et al., Image quality assessment, IEEE TIP 2004; Wang, Simoncelli and Bovik, Multi-scale
    structural similarity, Asilomar 2003.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from screener_nnu.plans import Shape
from screener_nnu.sampling.smoothing import gaussian_smooth

#: Weights of the scales, finest first (Wang et al. 2003), and of a window of 3, four of them.
FIVE_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
FOUR_SCALES = (0.0516, 0.3295, 0.3463, 0.2726)
# Standard deviation of the Gaussian of a window of 11 (Wang et al. 2004).
_SIGMA_OF_11 = 1.5
_K1, _K2 = 0.01, 0.03
# Where images are unrelated a term may be negative, and has no root.
_LEAST = 1e-6


def fitting_weights(size: Shape, window: int) -> tuple[float, ...]:
    """Weights of the most scales that images of a size have room for; their sum is 1.

    Args:
        size: (D, H, W) of the images.
        window: edge of the window; one of 3 has four scales at most, others have five.

    Raises:
        ValueError: not even one window fits.

    Example:
        >>> len(fitting_weights((1, 256, 256), 11)), len(fitting_weights((1, 128, 128), 11))
        (5, 4)
    """
    weights = FOUR_SCALES if window == 3 else FIVE_SCALES
    side = _shortest_side(size)
    count = max((n for n in range(1, len(weights) + 1) if _fits(side, window, n)), default=0)
    if not count:
        raise ValueError(f"an image of {list(size)} has no room for a window of {window}")
    total = sum(weights[:count])
    return tuple(weight / total for weight in weights[:count])


def ssim(
    x: torch.Tensor, y: torch.Tensor, window: int = 11, value_range: float = 1.0
) -> torch.Tensor:
    """Mean structural similarity (B,) of two images over all places where the window fits.

    Raises:
        ValueError: a side is shorter than the window, or the window is even.
    """
    _check_size(x, window, 1)
    return _inner_mean(_terms(x, y, window, value_range)[0], x, window).mean(1)


def ms_ssim(
    x: torch.Tensor,
    y: torch.Tensor,
    window: int = 11,
    weights: Sequence[float] = FIVE_SCALES,
    value_range: float = 1.0,
) -> torch.Tensor:
    """Multi-scale structural similarity (B,): 1 for equal images.

    It is the product over scales of contrast and structure to the power of the scale's weight, at
    the coarsest scale with luminance (Wang et al. 2003, eq. 7); scales halve the image by averages
    of two voxels an axis, and keep the rest of an odd side. Terms below 0 count as 0; channels are
    averaged.

    Args:
        x, y: images (B, C, D, H, W).
        window: edge of the Gaussian window, odd; its standard deviation is 1.5 for 11, and is
            scaled with the edge for others.
        weights: of the scales, finest first.
        value_range: difference between the highest and the lowest possible value.

    Raises:
        ValueError: the window is even, or a side is not longer than (window - 1) 2^(scales - 1).
    """
    _check_size(x, window, len(weights))
    product = x.new_ones(x.shape[:2], dtype=torch.float32)
    for scale, weight in enumerate(weights):
        whole, structure = _terms(x, y, window, value_range)
        term = whole if scale == len(weights) - 1 else structure
        product = product * _inner_mean(term, x, window).clamp_min(_LEAST) ** weight
        x, y = _halved(x), _halved(y)
    return product.mean(1)


def ms_ssim_map(
    x: torch.Tensor,
    y: torch.Tensor,
    window: int = 11,
    weights: Sequence[float] = FIVE_SCALES,
    value_range: float = 1.0,
) -> torch.Tensor:
    """Structural similarity (B, D, H, W) of each voxel, the mean over scales by their weights.

    Maps of coarser scales are upsampled linearly. Beyond the border lies what lies at it.

    Args:
        x, y, window, weights, value_range: see `ms_ssim`.

    Raises:
        ValueError: see `ms_ssim`.
    """
    _check_size(x, window, len(weights))
    size = x.shape[2:]
    total = x.new_zeros((len(x), 1, *size), dtype=torch.float32)
    for weight in weights:
        similarity = _terms(x, y, window, value_range)[0].mean(1, keepdim=True)
        if similarity.shape[2:] != size:
            similarity = F.interpolate(similarity, size, mode="trilinear")
        total = total + weight / sum(weights) * similarity
        x, y = _halved(x), _halved(y)
    return total[:, 0]


def _shortest_side(size: Sequence[int]) -> int:
    """Of the axes that have one: of a picture height and width."""
    return min((n for n in size if n > 1), default=1)


def _fits(side: int, window: int, scales: int) -> bool:
    return side > (window - 1) * 2 ** (scales - 1)


def _check_size(images: torch.Tensor, window: int, scales: int) -> None:
    if window % 2 == 0:
        raise ValueError(f"a window of {window} has no middle: take an odd one")
    if not _fits(_shortest_side(images.shape[2:]), window, scales):
        raise ValueError(
            f"images of {list(images.shape[2:])} are too small for {scales} scales of a window of "
            f"{window}: sides must be longer than {(window - 1) * 2 ** (scales - 1)}"
        )


def _terms(
    x: torch.Tensor, y: torch.Tensor, window: int, value_range: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarity, and contrast with structure alone, of every voxel (B, C, D, H, W), float32."""
    x, y = x.float(), y.float()
    moments = gaussian_smooth(
        torch.cat([x, y, x * x, y * y, x * y]), _SIGMA_OF_11 * window / 11, window // 2
    ).chunk(5)
    mean_x, mean_y, square_x, square_y, product = moments
    c1, c2 = (_K1 * value_range) ** 2, (_K2 * value_range) ** 2
    variances = square_x - mean_x**2 + square_y - mean_y**2
    structure = (2 * (product - mean_x * mean_y) + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * structure, structure


def _inner_mean(term: torch.Tensor, images: torch.Tensor, window: int) -> torch.Tensor:
    """Mean (B, C) over the places whose window lies in the image."""
    half = window // 2
    for axis in (2, 3, 4):
        if images.shape[axis] > 1:
            term = term.narrow(axis, half, images.shape[axis] - 2 * half)
    return term.flatten(2).mean(2)


def _halved(images: torch.Tensor) -> torch.Tensor:
    kernel = [min(2, n) for n in images.shape[2:]]
    # An odd side keeps its rest, so that no scale is smaller than its window.
    return F.avg_pool3d(images.float(), kernel, ceil_mode=True)
