"""What a map says against its surroundings."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from screener_nnu.sampling.smoothing import gaussian_smooth


def local_contrast(
    scores: torch.Tensor,
    body: torch.Tensor,
    fine: Sequence[float],
    coarse: Sequence[float],
    weight: float = 1.0,
) -> torch.Tensor:
    """Gaussian mean of the scores close by, less the one of a larger neighbourhood.

    Tissue whose scores are high all around (noise, metal, the border of the field of view) is as
    far from 0 as a place of low ones. What is larger than the coarse neighbourhood is seen at its
    border alone; with a weight below 1, its inside keeps a part of its scores. Both means are over
    the body: air does not leak under the skin.

    Args:
        scores: (D, H, W).
        body: which of them count, bool (D, H, W).
        fine, coarse: standard deviations in voxels, one an axis.
        weight: part of the coarse mean that is taken away, 0 to 1.

    Returns:
        (D, H, W) float32 in the unit of the scores; 0 where no body is near.
    """
    weights = body.float()
    parts = torch.stack([torch.where(body, scores.float(), 0), weights])[None]

    def mean(sigma: Sequence[float]) -> torch.Tensor:
        total, near = gaussian_smooth(parts, sigma)[0]
        return torch.where(near > 1e-6, total / near.clamp_min(1e-6), 0)

    return mean(fine) - weight * mean(coarse)
