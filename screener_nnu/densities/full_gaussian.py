"""Gaussians with full covariance, one for each bin of the position in the body: PaDiM."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from screener_nnu.densities.fitted import FittedDensity
from screener_nnu.densities.moments import mean_and_scatter
from screener_nnu.errors import ScreenerError
from screener_nnu.setting_values import CountOrNone, OneOf, Positive, parse

logger = logging.getLogger(__name__)

# Numbers of the covariances that are factorised at a time: 32 MB in float64.
_BATCH_NUMBERS = 1 << 22


@dataclass(frozen=True)
class FullGaussianSettings:
    """Settings of `FullGaussianDensity`.

    Attributes:
        bins: of the position, along each axis of the condition; 0 for one a place, as PaDiM has
            them for the pixels of pictures that are framed alike.
        leaning: whether bins with few rows lean on the pooled covariance; PaDiM's do not.
        ridge: added to the diagonal of every covariance.
        ridge_kind: `absolute`, in units of standardised descriptors squared, or `relative`, times
            the mean variance of all rows.
        covariance: `full`; `shared`, one of all bins about their own means, for scans so few that
            most bins have fewer than 2 d rows; or `diagonal`.
    """

    bins: tuple[CountOrNone, CountOrNone, CountOrNone] = (4, 4, 4)
    ridge: Positive = 0.01
    ridge_kind: Annotated[str, OneOf("absolute", "relative")] = "absolute"
    covariance: Annotated[str, OneOf("full", "shared", "diagonal")] = "full"
    leaning: bool = True


class FullGaussianDensity(FittedDensity):
    """Gaussian with mean and full covariance of its own in each bin of the position.

    The condition is a position of three coordinates. Bins divide the range of the fitted rows
    evenly along each axis; positions beyond it belong to the outer bins. The pooled Gaussian is
    that of all rows together. A bin of n rows has

        mean        that of its rows
        covariance  w S_bin + (1 - w) S_pooled + ridge I,  w = min(1, (n - 1) / (2 d - 1))

    so that a bin of 2 d rows or more trusts its own covariance S_bin (over n - 1), one with fewer
    leans on the pooled covariance the more the fewer it has, and one with a single row takes it as
    it is. Without `leaning`, w is 1 for every bin of two rows or more. A bin without rows takes
    mean and covariance of the pooled Gaussian. `diagonal` keeps
    the diagonal of all that. `shared` is, in each bin with rows, the scatter of all rows about the
    means of their bins over N minus the number of these bins, plus the ridge.

    Without a condition, all rows are one bin. The state takes d^2 float32 numbers a bin.

    References:
        Defard et al., PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and
        Localization, ICPR Workshops 2021, section 3 (https://arxiv.org/abs/2011.08785).
        Friedman, Regularized Discriminant Analysis, JASA 1989, for leaning on what is pooled.

    Args:
        dim: channels d of the descriptor map.
        cond_dim: 3, a position, or 0.
        bins, ridge, ridge_kind, covariance, leaning: see `FullGaussianSettings`.

    Raises:
        ScreenerError: another condition, or a setting outside its limits.

    Example:
        >>> density = FullGaussianDensity(2)
        >>> rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
        >>> density.fit(rows, None, torch.Generator())
        >>> density.mahalanobis(torch.tensor([0.0, 4.0]).view(1, 2, 1, 1, 1)).item()
        2.44...
    """

    Settings: ClassVar[type] = FullGaussianSettings
    bin_counts: Tensor
    lowest: Tensor
    highest: Tensor
    means: Tensor
    covariance_of_bin: Tensor
    whitening: Tensor
    log_peak: Tensor

    def __init__(
        self,
        dim: int,
        cond_dim: int = 0,
        bins: Sequence[int] = FullGaussianSettings.bins,
        ridge: float = FullGaussianSettings.ridge,
        ridge_kind: str = FullGaussianSettings.ridge_kind,
        covariance: str = FullGaussianSettings.covariance,
        leaning: bool = FullGaussianSettings.leaning,
    ) -> None:
        """Checks the settings; `fit` does the rest."""
        super().__init__(dim, cond_dim)
        if cond_dim not in (0, 3):
            raise ScreenerError(
                "the density full_gaussian divides positions of three coordinates into bins, and "
                f"the condition has {cond_dim} channels: choose a position as condition, or none "
                "(condition.kind=none)"
            )
        values = {"bins": bins, "ridge": ridge, "ridge_kind": ridge_kind, "covariance": covariance}
        values["leaning"] = leaning
        self.settings: FullGaussianSettings = parse(self.Settings, values, "full_gaussian")
        bins = self.settings.bins[:cond_dim]
        # Stored only where the data decides, so that states of earlier versions stay whole.
        self.register_buffer("bin_counts", torch.tensor(bins), persistent=0 in bins)
        self.register_buffer("lowest", torch.zeros(cond_dim))
        self.register_buffer("highest", torch.zeros(cond_dim))
        # A mean a bin (K, d). Bins may have one covariance in common, so there are M <= K + 1 of
        # them, the pooled one first: inverse Cholesky factors (M, d, d), or (M, d) of diagonals,
        # and the log-density at the mean (M,).
        self.register_buffer("means", torch.zeros(0, dim))
        self.register_buffer("covariance_of_bin", torch.zeros(0, dtype=torch.long))
        factor = (dim,) if covariance == "diagonal" else (dim, dim)
        self.register_buffer("whitening", torch.zeros(0, *factor))
        self.register_buffer("log_peak", torch.zeros(0))

    def mahalanobis(self, y: Tensor, c: Tensor | None = None) -> Tensor:
        """Mahalanobis distance to the Gaussian of the bin, PaDiM's score.

        Args:
            y: descriptor map, (B, d, D, H, W).
            c: map of positions, (B, 3, D, H, W); `None` if the density is unconditional.

        Returns:
            (B, D, H, W), without unit.

        Raises:
            ValueError: the maps do not have those shapes.
        """
        y, c = self._checked(y, c)
        rows, positions = (
            None if maps is None else maps.movedim(1, -1).flatten(0, -2) for maps in (y, c)
        )
        assert rows is not None
        with torch.autocast(y.device.type, enabled=False):
            squared, _ = self._squared_distance(rows, positions)
        return squared.sqrt().view(y.shape[0], *y.shape[2:])

    def _score_rows(self, y: Tensor, c: Tensor | None) -> Tensor:
        squared, covariance = self._squared_distance(y, c)
        return self.log_peak[covariance] - 0.5 * squared

    def _squared_distance(self, y: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """Squared Mahalanobis distance (N,) of rows, and the covariance (N,) that it is of."""
        bins = self._bins(y, c)
        covariance, residual = self.covariance_of_bin[bins], y - self.means[bins]
        if self.whitening.ndim == 2:
            return (residual * self.whitening[covariance]).square().sum(dim=1), covariance
        # Rows with a covariance in common lie together and take one product.
        order = covariance.argsort(stable=True)
        counts = torch.bincount(covariance, minlength=len(self.whitening)).tolist()
        groups = zip(residual[order].split(counts), self.whitening, strict=True)
        white = torch.cat([group @ factor.T for group, factor in groups if len(group)])
        return white.square().sum(dim=1)[order.argsort()], covariance

    def _bins(self, y: Tensor, c: Tensor | None) -> Tensor:
        """Bin (N,) of each row."""
        bins = torch.zeros(len(y), dtype=torch.long, device=self.lowest.device)
        for axis, count in enumerate(() if c is None else self.bin_counts.tolist()):
            assert c is not None
            width = self.highest[axis] - self.lowest[axis]
            # An axis along which the fitted positions are the same is one bin.
            share = torch.where(width > 0, (c[:, axis] - self.lowest[axis]) / width, 0)
            # A coordinate that is no number must not become an index; its descriptor is none
            # either, and that shows in the score.
            place = (share * count).floor().nan_to_num(0).clamp(0, count - 1)
            bins = bins * count + place.long()
        return bins

    def _fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        home = self.initialised.device
        if c is not None:
            self.lowest, self.highest = c.amin(dim=0).to(home), c.amax(dim=0).to(home)
            counts = [n or _places(c[:, axis]) for axis, n in enumerate(self.settings.bins)]
            self.bin_counts = torch.tensor(counts, device=home)
        bins = self._bins(y, c if c is None else c.to(home)).cpu()
        number = math.prod(self.bin_counts.tolist())
        rows = y.cpu()
        sizes = torch.bincount(bins, minlength=number).tolist()
        groups = rows[bins.argsort(stable=True)].split(sizes)
        self._fit_groups(rows, groups)

    def _fit_groups(self, rows: Tensor, groups: Sequence[Tensor]) -> None:
        """Computes means and covariances of rows that are grouped by bin, on the CPU."""
        mean, scatter = mean_and_scatter(rows)
        pooled = scatter / (len(rows) - 1)
        means = mean.repeat(len(groups), 1)
        covariance_of_bin = torch.zeros(len(groups), dtype=torch.long)
        ridge = self._ridge(pooled)
        factors = [self._factorise(pooled[None], ridge)]
        filled = [number for number, group in enumerate(groups) if len(group)]
        for number in filled:
            means[number] = groups[number].double().mean(dim=0)
        if len(groups) > 1 and self.settings.covariance == "shared":
            covariance_of_bin[filled] = 1
            factors.append(self._factorise(_shared([groups[n] for n in filled])[None], ridge))
        elif len(groups) > 1:
            covariance_of_bin[filled] = torch.arange(1, len(filled) + 1)
            batch = max(1, _BATCH_NUMBERS // self.dim**2)
            for first in range(0, len(filled), batch):
                own = [
                    _leaning(groups[n], pooled, self.settings.leaning)
                    for n in filled[first : first + batch]
                ]
                factors.append(self._factorise(torch.stack(own), ridge))
        few = sum(len(groups[n]) < 2 * self.dim for n in filled)
        logger.info(
            "Gaussians of %d bins: %d have fewer than %d rows, and %d have none",
            *(len(groups), few, 2 * self.dim, len(groups) - len(filled)),
        )
        home = self.initialised.device
        self.means, self.covariance_of_bin = means.float().to(home), covariance_of_bin.to(home)
        self.whitening, self.log_peak = (
            torch.cat(parts).to(home) for parts in zip(*factors, strict=True)
        )

    def _ridge(self, pooled: Tensor) -> float:
        if self.settings.ridge_kind == "absolute":
            return self.settings.ridge
        variance = pooled.diagonal().mean().item()
        if variance == 0:
            raise ScreenerError(
                "all descriptors are the same, so that there is no variance which a relative "
                "ridge could be a part of: choose density.options.ridge_kind=absolute"
            )
        return self.settings.ridge * variance

    def _factorise(self, covariances: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """Inverse Cholesky factors, or inverse deviations, and log-densities at the mean.

        Args:
            covariances: (M, d, d), float64, without ridge.
            ridge: of their diagonals.

        Raises:
            ScreenerError: a covariance is singular in spite of the ridge.
        """
        unit = torch.eye(self.dim, dtype=covariances.dtype)
        if self.settings.covariance == "diagonal":
            deviation = (covariances.diagonal(dim1=1, dim2=2) + ridge).sqrt()
            whitening = 1 / deviation
        else:
            factor, failed = torch.linalg.cholesky_ex(covariances + ridge * unit)
            factor[failed > 0] = 0
            deviation = factor.diagonal(dim1=1, dim2=2)
            whitening = torch.linalg.solve_triangular(factor, unit, upper=False)
        # In float32: a scale below its range would make scores that are no numbers.
        if not (deviation.float() > 0).all() or not whitening.float().isfinite().all():
            raise ScreenerError(
                f"a covariance is singular with a ridge of {ridge:.3g}: choose a higher one "
                "(density.options.ridge)"
            )
        log_peak = -deviation.log().sum(dim=1) - 0.5 * self.dim * math.log(2 * math.pi)
        return whitening.float(), log_peak.float()


def _places(coordinates: Tensor) -> int:
    """Different values of a coordinate, which are those of a grid, at most 512."""
    return min(512, len(coordinates.mul(1e4).round().unique()))


def _leaning(group: Tensor, pooled: Tensor, leaning: bool) -> Tensor:
    """Covariance of the rows of a bin (n, d), which may lean on the pooled one if they are few."""
    count, dim = group.shape
    weight = min(1.0, (count - 1) / (2 * dim - 1) if leaning else float(count - 1))
    _, scatter = mean_and_scatter(group)
    return weight * scatter / max(count - 1, 1) + (1 - weight) * pooled


def _shared(groups: Sequence[Tensor]) -> Tensor:
    """Covariance of the rows of all bins about the means of their bins."""
    freedom = sum(map(len, groups)) - len(groups)
    if freedom < 1:
        raise ScreenerError(
            "no bin has two rows, so that bins have no covariance to share: choose fewer bins "
            "(density.options.bins), or give more scans"
        )
    return torch.stack([mean_and_scatter(group)[1] for group in groups]).sum(dim=0) / freedom
