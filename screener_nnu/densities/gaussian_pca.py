"""Gaussian in the space of the principal components."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from screener_nnu.densities.fitted import FittedDensity
from screener_nnu.densities.moments import mean_and_scatter
from screener_nnu.errors import ScreenerError
from screener_nnu.setting_values import Count, OneOf, Positive, parse

# A variance below this part of the largest one is rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class GaussianPcaSettings:
    """Settings of `GaussianPcaDensity`.

    Attributes:
        components: principal components that are kept at most.
        ridge: added to the variance of every component.
        ridge_kind: `absolute`, in units of standardised descriptors squared; `relative`, times the
            mean variance of the components (1e-3 is usual); or `ledoit_wolf`, which takes no ridge
            and estimates from the rows how far the variances shrink towards their mean.
    """

    components: Count = 256
    ridge: Positive = 1e-4
    ridge_kind: Annotated[str, OneOf("absolute", "relative", "ledoit_wolf")] = "absolute"


class GaussianPcaDensity(FittedDensity):
    """Gaussian of the first r = min(components, d, N - 1) principal components of the rows.

    Their covariance, over N - 1, is diagonal: the eigenvalues of that of the rows, plus the ridge.
    The log-density is that of the r numbers; what a row has outside their span does not count.
    Where not all d components are kept, those in which the fitted rows do not differ at all are
    left out, for any basis of them would be as good.

    The Ledoit-Wolf estimate (1 - rho) S + rho m I, m being the mean variance, has

        rho = min(1, b / a),  a = ||S - m I||^2,  b = (sum_i |x_i|^4 / N - ||S||^2) / N

    with S over N and the squared Frobenius norm. It is applied to the covariance over N - 1.

    References:
        Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance matrices,
        Journal of Multivariate Analysis 2004, section 3.

    Args:
        dim: channels d of the descriptor map.
        cond_dim: 0; there is no conditional form.
        components, ridge, ridge_kind: see `GaussianPcaSettings`.

    Raises:
        ScreenerError: a condition, or a setting outside its limits.

    Example:
        >>> density = GaussianPcaDensity(3, components=1)
        >>> rows = torch.tensor([[3.0, 0.0, 0.1], [-3.0, 0.0, 0.1], [0.0, 0.1, 0.1]])
        >>> density.fit(rows, None, torch.Generator())
        >>> density.components.abs().round().tolist(), density.variances.round().tolist()
        ([[1.0, 0.0, 0.0]], [9.0])
    """

    Settings: ClassVar[type] = GaussianPcaSettings
    mean: Tensor
    components: Tensor
    variances: Tensor

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        components: int = GaussianPcaSettings.components,
        ridge: float = GaussianPcaSettings.ridge,
        ridge_kind: str = GaussianPcaSettings.ridge_kind,
    ) -> None:
        """Checks the settings; `fit` does the rest."""
        super().__init__(dim, cond_dim)
        if cond_dim:
            raise ScreenerError(
                "the density gaussian_pca takes no condition: choose condition.kind=none"
            )
        values = {"components": components, "ridge": ridge, "ridge_kind": ridge_kind}
        self.settings: GaussianPcaSettings = parse(self.Settings, values, "gaussian_pca")
        self.register_buffer("mean", torch.zeros(dim))
        # (r, d), orthonormal, in descending order of their variances (r,), which hold the ridge.
        self.register_buffer("components", torch.zeros(0, dim))
        self.register_buffer("variances", torch.zeros(0))

    def _score_rows(self, y: Tensor, c: Tensor | None) -> Tensor:
        scores = (y - self.mean) @ self.components.T
        scaled = scores.square() / self.variances + (2 * math.pi * self.variances).log()
        return -0.5 * scaled.sum(dim=1)

    def _fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        mean, variances, components = _principal(y)
        kept = min(self.settings.components, self.dim, len(y) - 1)
        if kept < self.dim:
            rank = int((variances > _ROUNDING * variances[0]).sum())
            kept = max(1, min(kept, rank))
        components = _with_signs(components[:kept])
        variances = self._regularised(variances[:kept], (y.cpu(), mean, components))
        home = self.initialised.device
        self.mean, self.components = mean.float().to(home), components.float().to(home)
        self.variances = variances.float().to(home)

    def _regularised(self, variances: Tensor, data: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Variances with the ridge; `data` are rows, mean and components."""
        kind, ridge = self.settings.ridge_kind, self.settings.ridge
        level = variances.mean()
        if kind == "absolute":
            regularised = variances + ridge
        elif kind == "relative":
            regularised = variances + ridge * level
        else:
            shrinkage = ledoit_wolf_shrinkage(variances, *data)
            regularised = (1 - shrinkage) * variances + shrinkage * level
        if not regularised.min() > torch.finfo(torch.float32).tiny:
            raise ScreenerError(
                "descriptors have a component without variance: choose a higher density.options."
                "ridge with density.options.ridge_kind=absolute"
            )
        return regularised


def ledoit_wolf_shrinkage(
    variances: Tensor, rows: Tensor, mean: Tensor, components: Tensor
) -> float:
    """Intensity rho of the Ledoit-Wolf estimate in the space of principal components.

    Args:
        variances: of the components over N - 1, (r,), float64.
        rows: (N, d).
        mean: of the rows, (d,), float64.
        components: (r, d), float64.

    Returns:
        Between 0 and 1; 0 if all variances are the same.
    """
    count = len(rows)
    biased = variances * (count - 1) / count
    fourth = sum(
        ((block.double() - mean) @ components.T).square().sum(dim=1).square().sum().item()
        for block in rows.split(1 << 14)
    )
    spread = (biased - biased.mean()).square().sum().item()
    error = (fourth / count - biased.square().sum().item()) / count
    return min(1.0, max(0.0, error) / spread) if spread > 0 else 0.0


def _principal(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (d,), variances in descending order and their directions (n, d) of rows (N, d)."""
    if len(y) <= y.shape[1]:
        # Most eigenvalues of the scatter would be 0, with which solvers may fail to converge.
        rows = y.cpu().double()  # as the scatter, the same on every device
        mean = rows.mean(0)
        _, values, components = torch.linalg.svd(rows - mean, full_matrices=False)
        return mean, values.square() / (len(y) - 1), components
    mean, scatter = mean_and_scatter(y)
    variances, vectors = torch.linalg.eigh(scatter / (len(y) - 1))
    return mean, variances.flip(0).clamp(min=0), vectors.T.flip(0)


def _with_signs(components: Tensor) -> Tensor:
    """The components (r, d) with their entry of largest size positive."""
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    return components * largest.sign()
