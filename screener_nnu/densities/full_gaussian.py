"""Gaussians with full covariance, one for each bin of the position in the body: PaDiM."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor

from screener_nnu.densities.bin_moments import DIAGONAL, FULL, SHARED, BinMoments
from screener_nnu.densities.fitted import StreamedDensity
from screener_nnu.densities.inverse_factors import inverse_factors
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
    covariance: Annotated[str, OneOf(FULL, SHARED, DIAGONAL)] = FULL
    leaning: bool = True


class FullGaussianDensity(StreamedDensity):
    """Gaussian with mean and full covariance of its own in each bin of the position.

    The condition is a position of three coordinates. Bins divide the range of the fitted rows
    evenly along each axis; positions beyond it belong to the outer bins. The pooled Gaussian is
    that of all rows together. A bin of n rows has

        mean        that of its rows
        covariance  w S_bin + (1 - w) S_pooled + ridge I,  w = min(1, (n - 1) / (2 d - 1))

    so that a bin of 2 d rows or more trusts its own covariance S_bin (over n - 1), one with fewer
    leans on the pooled covariance the more the fewer it has, and one with a single row takes it as
    it is. Without `leaning`, w is 1 for every bin of two rows or more. A bin without rows takes
    mean and covariance of the pooled Gaussian. `diagonal` keeps the diagonal of all that. `shared`
    is, in each bin with rows, the scatter of all rows about the means of their bins over N minus
    the number of these bins, plus the ridge.

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
        factor = (dim,) if covariance == DIAGONAL else (dim, dim)
        self.register_buffer("whitening", torch.zeros(0, *factor))
        self.register_buffer("log_peak", torch.zeros(0))
        self._moments: BinMoments | None = None

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

    @property
    def streams(self) -> bool:
        """A Gaussian for each place needs every row: each scan has one there."""
        return self.cond_dim > 0 and 0 in self.settings.bins

    def state_bytes(self, c: Tensor | None) -> tuple[int, int]:
        """See `FittedDensity`; sums are in float64, and the Gaussians beside them in float32."""
        kind, bins = self.settings.covariance, math.prod(self._counts(c))
        numbers = {FULL: bins * self.dim**2, SHARED: self.dim**2, DIAGONAL: bins * self.dim}[kind]
        return 4 * numbers, 12 * numbers

    def _counts(self, c: Tensor | None) -> list[int]:
        """Bins along each axis of conditions (N, 3)."""
        if c is None:
            return []
        return [n or _places(c[:, axis]) for axis, n in enumerate(self.settings.bins)]

    def _begin(self, c: Tensor | None) -> None:
        home = self.initialised.device
        if c is not None:
            self.lowest, self.highest = c.amin(dim=0).to(home), c.amax(dim=0).to(home)
            self.bin_counts = torch.tensor(self._counts(c), device=home)
        number = math.prod(self.bin_counts.tolist())
        self._moments = BinMoments(number, self.dim, self.settings.covariance)

    def _add(self, y: Tensor, c: Tensor | None) -> None:
        assert self._moments is not None
        home = self.initialised.device
        self._moments.add(y, self._bins(y, None if c is None else c.to(home)))

    def _finish(self) -> None:
        moments, self._moments = self._moments, None
        assert moments is not None
        mean, pooled = moments.pooled()
        ridge, home = self._ridge(pooled), self.initialised.device
        means = torch.where(moments.counts[:, None] > 0, moments.means, mean)
        self.means = means.float().to(home)
        self.covariance_of_bin = self._covariance_of_bin(moments).to(home)
        number = int(self.covariance_of_bin.max()) + 1
        whitening, log_peak = torch.empty(number, *pooled.shape), torch.empty(number)
        first = 0
        for covariances in self._covariances(moments, pooled):
            part = slice(first, first + len(covariances))
            whitening[part], log_peak[part] = inverse_factors(covariances, ridge)
            first = part.stop
        self.whitening, self.log_peak = whitening.to(home), log_peak.to(home)
        self._tell_thin_bins(moments)

    def _covariance_of_bin(self, moments: BinMoments) -> Tensor:
        """Which covariance (K,) a bin has; 0, the pooled one, without rows or other bins."""
        numbers, filled = torch.zeros(len(moments.counts), dtype=torch.long), moments.filled
        if len(numbers) > 1:
            shared = self.settings.covariance == SHARED
            numbers[filled] = 1 if shared else torch.arange(1, len(filled) + 1)
        return numbers

    def _covariances(self, moments: BinMoments, pooled: Tensor) -> Iterator[Tensor]:
        """All of them in batches, (M, d, d) or (M, d), the pooled one first."""
        yield pooled[None]
        filled = moments.filled
        if len(moments.counts) > 1 and self.settings.covariance == SHARED:
            yield moments.shared()[None]
        elif len(moments.counts) > 1:
            batch = max(1, _BATCH_NUMBERS // self.dim**2)
            for first in range(0, len(filled), batch):
                yield self._own(moments, filled[first : first + batch], pooled)

    def _own(self, moments: BinMoments, bins: list[int], pooled: Tensor) -> Tensor:
        """Covariances of some bins, which lean on the pooled one where they have few rows."""
        few = moments.counts[bins].double() - 1
        weight = (few / (2 * self.dim - 1) if self.settings.leaning else few).clamp(max=1)
        weight = weight.view(-1, *[1] * pooled.ndim)
        return weight * moments.covariances(bins) + (1 - weight) * pooled

    def _tell_thin_bins(self, moments: BinMoments) -> None:
        counts, enough = moments.counts[moments.filled], 2 * self.dim
        few = int((counts < enough).sum())
        logger.info(
            "Gaussians of %d bins: %d have fewer than %d rows, and %d have none",
            *(len(moments.counts), few, enough, len(moments.counts) - len(counts)),
        )
        if self.settings.covariance == FULL and 2 * few > len(counts):
            leaning = self.settings.leaning and len(moments.counts) > 1
            logger.warning(
                "most Gaussians have fewer than %d rows, two a channel (%d at most; of pictures, a "
                "place has one a picture): %s; give more images, or keep fewer channels "
                "(density.descriptor_options.most_channels), or set density.options.covariance to "
                "shared or diagonal",
                *(enough, int(counts.max())),
                "they lean on the covariance of all rows"
                if leaning
                else "the ridge decides where the rows say nothing",
            )

    def _ridge(self, pooled: Tensor) -> float:
        if self.settings.ridge_kind == "absolute":
            return self.settings.ridge
        variance = (pooled if pooled.ndim == 1 else pooled.diagonal()).mean().item()
        if variance == 0:
            raise ScreenerError(
                "all descriptors are the same, so that there is no variance which a relative "
                "ridge could be a part of: choose density.options.ridge_kind=absolute"
            )
        return self.settings.ridge * variance


def _places(coordinates: Tensor) -> int:
    """Different values of a coordinate, which are those of a grid, at most 512."""
    return min(512, len(coordinates.mul(1e4).round().unique()))
