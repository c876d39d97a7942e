"""Diagonal Gaussian whose mean and variance may depend on the condition."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import DensitySettings

#: Largest |log-variance|; on standardised descriptors, standard deviations from 0.03 to 33.
LOG_VARIANCE_LIMIT = 7.0


class GaussianDensity(ConditionalDensity):
    """Gaussian with diagonal covariance, q(y | c) = N(mu(c), diag(sigma(c)^2)).

    Without a condition, mean and log-variance are learned vectors. With one, a small convolutional
    network predicts both: a first layer that sees a neighbourhood (locally aggregated conditions),
    then 1x1x1 layers. Its last layer starts at zero, so that training starts from the
    unconditional Gaussian of the first batch. Borders are padded with their own values, for zeros
    would look like the mean condition.

    The log-variance is limited smoothly, L tanh(x / L) with L = 7: a hard clamp has no gradient
    beyond its bounds, and a voxel that once got there could not come back.

    References:
        Goncharov et al., Modeling the Density of Pixel-level Self-supervised Embeddings for
        Unsupervised Pathology Segmentation in Medical CT, ICLR 2026, the Gaussian density models
        (https://arxiv.org/abs/2502.08321).

    Args:
        dim: channels d of the descriptor map.
        cond_dim: channels d_cond of the condition map; 0 for an unconditional density.
        hidden: width of the two hidden layers (conditional only).
        kernel_size: of the first layer, odd (conditional only).

    Raises:
        ScreenerError: the kernel size is even or not positive.
    """

    def __init__(
        self, dim: int, cond_dim: int = 0, hidden: int = 512, kernel_size: int = 3
    ) -> None:
        """Builds the standard normal density that `initialise` then moves."""
        super().__init__(dim, cond_dim)
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ScreenerError(f"kernel_size must be odd and positive, not {kernel_size}")
        if cond_dim == 0:
            self.mean = nn.Parameter(torch.zeros(dim))
            self.raw_log_variance = nn.Parameter(torch.zeros(dim))
            return
        self.reach = kernel_size // 2
        last = nn.Conv3d(hidden, 2 * dim, 1)
        for start in last.parameters():
            nn.init.zeros_(start)
        self.net = nn.Sequential(
            nn.Conv3d(
                cond_dim,
                hidden,
                kernel_size,
                padding=kernel_size // 2,
                padding_mode="replicate",
            ),
            nn.ReLU(inplace=True),
            nn.Conv3d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            last,
        )

    @classmethod
    def options(cls, settings: DensitySettings) -> dict[str, Any]:
        """Width and kernel, which a plan has among the settings of all densities."""
        own = {"hidden": settings.hidden, "kernel_size": settings.kernel_size}
        return super().options(settings) | own

    def parameters_of(self, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, each (B, d, D, H, W), or (1, d, 1, 1, 1) without a condition."""
        if c is None:
            mean = self.mean.view(1, -1, 1, 1, 1)
            raw = self.raw_log_variance.view(1, -1, 1, 1, 1)
        else:
            mean, raw = self.net(c).chunk(2, dim=1)
        return mean, LOG_VARIANCE_LIMIT * torch.tanh(raw / LOG_VARIANCE_LIMIT)

    def _log_prob(self, y: Tensor, c: Tensor | None) -> Tensor:
        mean, log_variance = self.parameters_of(c)
        distance = (y - mean).square() * torch.exp(-log_variance)
        return -0.5 * (distance + log_variance + math.log(2 * math.pi)).sum(dim=1)

    def _initialise(self, y: Tensor, c: Tensor | None) -> None:
        mean = y.mean(dim=(0, 2, 3, 4))
        variance = y.var(dim=(0, 2, 3, 4), correction=0)
        # Just inside the limit, where the inverse of the smooth limit is finite.
        bound = 0.99 * LOG_VARIANCE_LIMIT
        log_variance = variance.log().clamp(-bound, bound)
        raw = LOG_VARIANCE_LIMIT * torch.atanh(log_variance / LOG_VARIANCE_LIMIT)
        if c is None:
            self.mean.copy_(mean)
            self.raw_log_variance.copy_(raw)
        else:
            self.net[-1].bias.copy_(torch.cat([mean, raw]))  # type: ignore[operator]
