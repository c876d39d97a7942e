"""Losses of interpolated Gaussian descriptors; each is (B,), one number an image.

References:
    Chen et al., Deep one-class classification via interpolated Gaussian descriptor, AAAI 2022.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from screener_nnu.losses.ms_ssim import fitting_weights, ms_ssim, ms_ssim_map
from screener_nnu.plans import Shape

# Of a score of voxels, the part of dissimilarity; the rest is the absolute difference.
_MAP_SIMILARITY = 0.85
# Share of an image in what the critic sees of it beside its reconstruction.
_OF_IMAGE = 0.2


class Similarity(NamedTuple):
    """How images of one size are compared, see `ms_ssim`.

    Attributes:
        window: edge of the window.
        weights: of the scales.
    """

    window: int
    weights: tuple[float, ...]

    @classmethod
    def of(cls, size: Shape, local: bool) -> Similarity:
        """A window of 11 of whole pictures, 5 of crops of volumes, 3 of patches, as scales fit.

        Raises:
            ValueError: images of this size are smaller than the window.

        Example:
            >>> Similarity.of((1, 32, 32), local=True)
            Similarity(window=3, weights=(0.0516, 0.3295, 0.3463, 0.2726))
        """
        window = 3 if local else 11 if size[0] == 1 else 5
        return cls(window, fitting_weights(size, window))


def reconstruction_loss(
    images: torch.Tensor, decoded: torch.Tensor, rho: float, similarity: Similarity
) -> torch.Tensor:
    """Rho |x - x~| + (1 - rho) (1 - MS-SSIM), (B,); images lie in [0, 1], a range of 1.

    Args:
        images, decoded: (B, C, D, H, W).
        rho: weight of the mean absolute difference.
        similarity: how they are compared.
    """
    absolute = (images - decoded).abs().flatten(1).mean(1)
    return rho * absolute + (1 - rho) * (1 - ms_ssim(images, decoded, *similarity))


def reconstruction_map(
    images: torch.Tensor, decoded: torch.Tensor, similarity: Similarity
) -> torch.Tensor:
    """Score of each voxel (B, D, H, W): 0.85 of dissimilarity, 0.15 of the absolute difference."""
    alike = ms_ssim_map(images, decoded, *similarity)
    absolute = (images - decoded).abs().mean(1)
    return _MAP_SIMILARITY * (1 - alike) + (1 - _MAP_SIMILARITY) * absolute


def smoothed_reconstruction(images: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """What the critic has to know for unmixed: reconstructions with a fifth of their images."""
    return torch.lerp(decoded, images, _OF_IMAGE)


def critic_loss(
    guesses_mixed: torch.Tensor, mix: torch.Tensor, guesses_unmixed: torch.Tensor
) -> torch.Tensor:
    """(D(mixed) - mix)^2 + D(unmixed)^2, (B,) of guesses and shares (B,).

    Raises:
        ValueError: they are not all of one shape (B,), and would be paired with each other.
    """
    shapes = {tuple(t.shape) for t in (guesses_mixed, mix, guesses_unmixed)}
    if len(shapes) > 1 or guesses_mixed.ndim != 1:
        raise ValueError(f"guesses and shares must have one shape (B,), but have {sorted(shapes)}")
    return (guesses_mixed - mix).square() + guesses_unmixed.square()
