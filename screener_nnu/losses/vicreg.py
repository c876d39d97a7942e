"""VICReg on pairs of voxels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DenseVICReg(nn.Module):
    r"""Variance-invariance-covariance regularisation of the embeddings of N pairs of voxels.

    With Z1, Z2 of shape (N, D) and C the unbiased covariance (D, D) of one view, the loss is

    .. math:: w_i \frac{1}{ND} \sum_n \|z_n^1 - z_n^2\|^2
        + w_v \frac{1}{D} \sum_i \max(0, 1 - \sqrt{C_{ii} + \epsilon})
        + w_c \frac{1}{D} \sum_{i \ne j} C_{ij}^2

    where the second and third terms are reduced over the two views.

    References:
        Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for
        Self-Supervised Learning, ICLR 2022, equations 1 to 6 (https://arxiv.org/abs/2105.04906).
        Goncharov et al., Modeling the Density of Pixel-level Self-supervised Embeddings for
        Unsupervised Pathology Segmentation in Medical CT, ICLR 2026, which sums variance and
        covariance over the views (https://arxiv.org/abs/2502.08321).

    Args:
        invariance_weight: w_i.
        variance_weight: w_v.
        covariance_weight: w_c.
        eps: added to a variance before its root, so that its gradient stays finite at zero.
        view_reduction: `mean` averages the variance and covariance terms over the two views,
            `sum` adds them.

    Example:
        >>> loss, terms = DenseVICReg()(torch.zeros(4, 3), torch.zeros(4, 3))
        >>> round(loss.item(), 4), sorted(terms)
        (24.75, ['covariance', 'invariance', 'variance'])
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        eps: float = 1e-4,
        view_reduction: str = "mean",
    ) -> None:
        """Stores the weights; there is nothing to learn."""
        super().__init__()
        if view_reduction not in ("mean", "sum"):
            raise ValueError(f"view_reduction must be 'mean' or 'sum', not {view_reduction!r}")
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.eps = eps
        self.view_reduction = view_reduction

    def forward(self, z1: Tensor, z2: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the loss in float32 (float64 inputs stay float64), under autocast too.

        Args:
            z1: embeddings of the first view, (N, D).
            z2: embeddings of the same voxels in the second view, (N, D).

        Returns:
            The scalar loss, and its three terms without their weights, detached.

        Raises:
            ValueError: the shapes differ, are not (N, D), or N < 2.
        """
        if z1.ndim != 2 or z1.shape != z2.shape or len(z1) < 2:
            shapes = f"{tuple(z1.shape)} and {tuple(z2.shape)}"
            raise ValueError(f"VICReg needs two (N, D) tensors with N >= 2, got {shapes}")
        with torch.autocast(z1.device.type, enabled=False):
            # Half-precision sums over thousands of pairs lose the small covariances.
            z1, z2 = (z.to(torch.promote_types(z.dtype, torch.float32)) for z in (z1, z2))
            share = 0.5 if self.view_reduction == "mean" else 1.0
            centred = [z - z.mean(dim=0) for z in (z1, z2)]
            invariance = F.mse_loss(z1, z2)
            variance = share * sum_of([self._variance(z) for z in centred])
            covariance = share * sum_of([off_diagonal_energy(z) / z.shape[1] for z in centred])
            loss = (
                self.invariance_weight * invariance
                + self.variance_weight * variance
                + self.covariance_weight * covariance
            )
        terms = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return loss, {name: term.detach() for name, term in terms.items()}

    def _variance(self, centred: Tensor) -> Tensor:
        """Mean over the dimensions of how far a standard deviation stays below one."""
        variance = centred.square().sum(dim=0) / (len(centred) - 1)
        return F.relu(1 - torch.sqrt(variance + self.eps)).mean()


def sum_of(terms: list[Tensor]) -> Tensor:
    """Sum of scalar tensors."""
    return torch.stack(terms).sum()


def off_diagonal_energy(centred: Tensor) -> Tensor:
    """Sum of the squared off-diagonal entries of the unbiased covariance.

    Args:
        centred: vectors with their mean removed, (N, D).

    Returns:
        A scalar, by way of whichever of the (N, N) and (D, D) matrices is smaller.
    """
    samples, width = centred.shape
    return _energy_by_gram(centred) if samples < width else _energy_by_covariance(centred)


def _energy_by_covariance(centred: Tensor) -> Tensor:
    covariance = centred.T @ centred / (len(centred) - 1)
    # Dropping the diagonal before squaring keeps small entries that a subtraction would lose.
    return covariance.fill_diagonal_(0.0).square().sum()


def _energy_by_gram(centred: Tensor) -> Tensor:
    """Uses ||Z^T Z||_F = ||Z Z^T||_F, so that no (D, D) matrix is built.

    The subtraction is harmless here: with rank N - 1 < D the off-diagonal entries carry at least
    the share 1 - (N - 1) / D of the whole.
    """
    scale = len(centred) - 1
    gram = centred @ centred.T / scale
    variance = centred.square().sum(dim=0) / scale
    return gram.square().sum() - variance.square().sum()
