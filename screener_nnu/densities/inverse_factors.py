"""Inverse Cholesky factors of covariances."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from screener_nnu.errors import ScreenerError


def inverse_factors(covariances: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """What standardises residuals, and the log-densities at the mean.

    Args:
        covariances: (M, d, d), or (M, d) of diagonals, float64, without ridge.
        ridge: added to their diagonals.

    Returns:
        Inverse Cholesky factors (M, d, d), or inverse deviations (M, d), and (M,), float32.

    Raises:
        ScreenerError: a covariance is singular in spite of the ridge.
    """
    dim = covariances.shape[-1]
    if covariances.ndim == 2:
        deviation = (covariances + ridge).sqrt()
        factors = 1 / deviation
    else:
        unit = torch.eye(dim, dtype=covariances.dtype)
        factor, failed = torch.linalg.cholesky_ex(covariances + ridge * unit)
        factor[failed > 0] = 0
        deviation = factor.diagonal(dim1=1, dim2=2)
        factors = torch.linalg.solve_triangular(factor, unit, upper=False)
    # In float32: a scale below its range would make scores that are no numbers.
    if not (deviation.float() > 0).all() or not factors.float().isfinite().all():
        raise ScreenerError(
            f"a covariance is singular with a ridge of {ridge:.3g}: choose a higher one "
            "(density.options.ridge)"
        )
    log_peak = -deviation.log().sum(dim=1) - 0.5 * dim * math.log(2 * math.pi)
    return factors.float(), log_peak.float()
