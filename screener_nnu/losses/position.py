"""Positions whose distances are those in the body: the objective of the position stage."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PositionLoss(nn.Module):
    r"""Mean squared error of pairwise distances, and of one voxel's positions in two crops.

    With :math:`e_a` the embeddings (mm) of all N voxels sampled from both crops of one volume,
    :math:`p_a` their places in it (mm), and :math:`e_s^1, e_s^2` those of the S voxels that both
    crops show,

    .. math:: \frac{1}{N(N-1)} \sum_{a \ne b} (\|e_a - e_b\| - \|p_a - p_b\|)^2 / u^2
        + w \frac{1}{S} \sum_s \|e_s^1 - e_s^2\|^2 / u^2

    Distances know nothing of a scan's origin, so one frame has to fit all bodies.

    References:
        Goncharov et al., Modeling the Density of Pixel-level Self-supervised Embeddings for
        Unsupervised Pathology Segmentation in Medical CT, ICLR 2026, ablation of the condition
        (https://arxiv.org/abs/2502.08321).

    Args:
        unit_mm: u, the length (mm) whose error costs 1, so that the loss is of order 1.
        invariance_weight: w.

    Example:
        >>> voxels = torch.tensor([[0.0, 0.0, 0.0], [0.0, 30.0, 40.0]])
        >>> loss, terms = PositionLoss()(2 * voxels, 2 * voxels, voxels, voxels, 2)
        >>> round(loss.item(), 4), sorted(terms)
        (0.1667, ['distance', 'invariance'])
    """

    def __init__(self, unit_mm: float = 100.0, invariance_weight: float = 1.0) -> None:
        """Stores the weights; there is nothing to learn."""
        super().__init__()
        self.unit_mm = unit_mm
        self.invariance_weight = invariance_weight

    def forward(
        self, first: Tensor, second: Tensor, first_mm: Tensor, second_mm: Tensor, shared: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one volume, in float32 or better.

        Args:
            first, second: embeddings (n, 3) and (m, 3) in mm of voxels of the two crops.
            first_mm, second_mm: their places (n, 3) and (m, 3) in the volume, in mm.
            shared: the first `shared` rows of both crops are the same voxels.

        Returns:
            The scalar loss, and its two terms without their weights, detached.

        Raises:
            ValueError: embeddings and places do not match.
        """
        if first.shape != first_mm.shape or second.shape != second_mm.shape:
            raise ValueError(
                f"embeddings {tuple(first.shape)} and {tuple(second.shape)} need places of the "
                f"same shape, got {tuple(first_mm.shape)} and {tuple(second_mm.shape)}"
            )
        errors = distance_errors(torch.cat([first, second]), torch.cat([first_mm, second_mm]))
        distance = (errors / self.unit_mm).square().sum() / number_of_pairs(errors)
        moved = (first[:shared] - second[:shared]) / self.unit_mm
        invariance = moved.square().sum() / max(1, shared)
        terms = {"distance": distance.detach(), "invariance": invariance.detach()}
        return distance + self.invariance_weight * invariance, terms


def distance_errors(embedded: Tensor, places: Tensor) -> Tensor:
    """Distances of embeddings minus distances of places, in mm.

    Args:
        embedded, places: (N, 3) in mm.

    Returns:
        (N, N), symmetric, 0 on the diagonal. Its gradient is 0, not NaN, where embeddings coincide.
    """
    return _distances(embedded) - _distances(places)


def number_of_pairs(errors: Tensor) -> int:
    """Entries of an (N, N) matrix that are off its diagonal, at least 1."""
    return max(1, errors.numel() - len(errors))


def _distances(points: Tensor) -> Tensor:
    """(N, N), from differences: expanding the square loses short distances."""
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
