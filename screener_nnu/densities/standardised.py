"""A density of standardised, and in training noisy, maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.densities.fitted import FittedDensity, StreamedDensity

NoiseSource = torch.Generator | Sequence[tuple[torch.Generator, int]] | None


class _Moments:
    """Mean and variance per channel of a stream of maps, in float64 on the CPU.

    Merges by the pairwise update of Chan, Golub and LeVeque (1983), for a sum of squares minus a
    squared sum cancels when the mean is large.
    """

    def __init__(self, channels: int) -> None:
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)

    def add(self, maps: Tensor) -> None:
        """Adds the voxels of a map (B, k, D, H, W)."""
        vectors = maps.detach().cpu().double().movedim(1, -1).flatten(0, -2)
        mean = vectors.mean(dim=0)
        total = self.count + len(vectors)
        gap = mean - self.mean
        self.squares += (vectors - mean).square().sum(dim=0)
        self.squares += gap.square() * self.count * len(vectors) / total
        self.mean += gap * len(vectors) / total
        self.count = total

    def std(self) -> Tensor:
        """Standard deviation of the population; one for a channel that never changes."""
        std = (self.squares / self.count).sqrt()
        return torch.where(std > 1e-6, std, torch.ones_like(std))


class StandardisedDensity(nn.Module):
    """Wraps a density so that it sees every channel with mean 0 and standard deviation 1.

    The training noise is added after standardisation, so that one number fits every descriptor.
    `log_prob` is log q of the *standardised* y. The log-density of the raw y is smaller by
    sum log(y_std), the same for every voxel, so the ranking of voxels is unchanged.

    References:
        Goncharov et al., Modeling the Density of Pixel-level Self-supervised Embeddings for
        Unsupervised Pathology Segmentation in Medical CT, ICLR 2026, for noise on y and c
        (https://arxiv.org/abs/2502.08321).

    Args:
        density: of the standardised maps.
        noise: standard deviation of the Gaussian noise on y and c, in train mode only.
    """

    y_mean: Tensor
    y_std: Tensor
    c_mean: Tensor
    c_std: Tensor
    has_statistics: Tensor

    def __init__(self, density: ConditionalDensity, noise: float = 0.1) -> None:
        """Starts without statistics; `accumulate` and `finish_statistics` collect them."""
        super().__init__()
        self.density = density
        self.noise = noise
        self.register_buffer("y_mean", torch.zeros(density.dim))
        self.register_buffer("y_std", torch.ones(density.dim))
        self.register_buffer("c_mean", torch.zeros(density.cond_dim))
        self.register_buffer("c_std", torch.ones(density.cond_dim))
        self.register_buffer("has_statistics", torch.tensor(False))
        self._forget()

    def _forget(self) -> None:
        self._y_moments = _Moments(self.density.dim)
        self._c_moments = _Moments(self.density.cond_dim)

    def accumulate(self, y: Tensor, c: Tensor | None = None) -> None:
        """Adds the maps of one batch to the statistics.

        Args:
            y: descriptor map, (B, d, D, H, W).
            c: condition map, (B, d_cond, D, H, W), or `None`.
        """
        self._y_moments.add(y)
        if c is not None:
            self._c_moments.add(c)

    def finish_statistics(self) -> None:
        """Takes mean and standard deviation from what was accumulated since the last call.

        Raises:
            RuntimeError: nothing was accumulated, or the conditions of some maps were left out.
        """
        counts = [self._y_moments.count]
        if self.density.cond_dim:
            counts.append(self._c_moments.count)
        if counts[0] == 0 or len(set(counts)) > 1:
            raise RuntimeError(f"accumulate y, and c if there is one, first; voxels: {counts}")
        self.y_mean.copy_(self._y_moments.mean)
        self.y_std.copy_(self._y_moments.std())
        if self.density.cond_dim:
            self.c_mean.copy_(self._c_moments.mean)
            self.c_std.copy_(self._c_moments.std())
        self.has_statistics.fill_(True)
        self._forget()

    def forward(self, y: Tensor, c: Tensor | None = None, generator: NoiseSource = None) -> Tensor:
        """Does what `log_prob` does; data-parallel wrappers need the name."""
        return self.log_prob(y, c, generator)

    def log_prob(self, y: Tensor, c: Tensor | None = None, generator: NoiseSource = None) -> Tensor:
        """Evaluates the log-density of the standardised maps, with noise in train mode.

        Args:
            y: descriptor map as the network gives it, (B, d, D, H, W).
            c: condition map as the network gives it, (B, d_cond, D, H, W), or `None`.
            generator: source of the noise, on any device; the default one if `None`. Maps of
                positions of several samples, (1, d, n, 1, 1), may have one for each: pairs of it
                and the number of its positions.

        Returns:
            log q in nats, (B, D, H, W).

        Raises:
            RuntimeError: there are no statistics yet.
        """
        return self.density.log_prob(*self._standardised(y, c, self.training, generator))

    def initialise(
        self, y: Tensor, c: Tensor | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Initialises the density from what it will see in training: with noise, in any mode.

        Args:
            y: descriptor map of a first batch, (B, d, D, H, W).
            c: its condition map, (B, d_cond, D, H, W), or `None`.
            generator: source of the noise, on any device; the default one if `None`.
        """
        self.density.initialise(*self._standardised(y, c, True, generator))

    def settle(self, y: Tensor, c: Tensor | None) -> None:
        """Lets the density measure what its scores need, see `ConditionalDensity.settle`."""
        self.density.settle(*self._standardised(y, c, False, None))

    def resize_to(self, state: Mapping[str, Any]) -> None:
        """Gives what depends on the data the size that it has in a state of this module."""
        if isinstance(self.density, FittedDensity):
            self.density.resize_to(state, "density.")

    def fit(self, y: Tensor, c: Tensor | None, generator: torch.Generator) -> None:
        """Fits a density that needs no training to rows, standardised and without noise.

        Args:
            y: descriptors as the network gives them, (N, d).
            c: their conditions, (N, d_cond), or `None`.
            generator: on the CPU, of whatever the density draws.

        Raises:
            ScreenerError: see `FittedDensity.fit`.
        """
        assert isinstance(self.density, FittedDensity)
        self.density.fit(
            self._rows(y), None if c is None else self.standardised_conditions(c), generator
        )

    @property
    def streams(self) -> bool:
        """Whether it is fitted part by part, see `FittedDensity.streams`."""
        return isinstance(self.density, FittedDensity) and self.density.streams

    def state_bytes(self, c: Tensor | None) -> tuple[int, int]:
        """Memory of a fitted density, see `FittedDensity.state_bytes`; 0 of others."""
        return self.density.state_bytes(c) if isinstance(self.density, FittedDensity) else (0, 0)

    def begin(self, c: Tensor | None) -> None:
        """Begins a fit part by part, see `StreamedDensity`; `c` as the network gives it."""
        assert isinstance(self.density, StreamedDensity)
        self.density.begin(None if c is None else self.standardised_conditions(c))

    def add(self, y: Tensor, c: Tensor | None) -> None:
        """Adds a part of the rows (N, d) and (N, d_cond), as `fit` takes them."""
        assert isinstance(self.density, StreamedDensity)
        self.density.add(self._rows(y), None if c is None else self.standardised_conditions(c))

    def finish(self) -> None:
        """Computes the state of the density from what was added."""
        assert isinstance(self.density, StreamedDensity)
        self.density.finish()

    def fit_vectors(self, vectors: Tensor, names: Sequence[str]) -> list[str]:
        """Fits it to the mean descriptors (n, d) of training scans, see `FittedDensity`."""
        assert isinstance(self.density, FittedDensity)
        return self.density.fit_vectors(self._rows(vectors), names)

    @property
    def has_vector_scores(self) -> bool:
        """Whether the density was fitted to vectors of scans."""
        return self.density.has_vector_scores

    def vector_scores(self, vector: Tensor) -> dict[str, float]:
        """Scores of a scan by the mean (d,) of its descriptors as the network gives them."""
        return self.density.vector_scores(self._rows(vector[None])[0])

    def cohort_scores(
        self, vectors: Tensor, names: Sequence[str], **changes: Any
    ) -> list[dict[str, float]]:
        """Scores of scans together by their mean descriptors (n, d), see `ConditionalDensity`."""
        return self.density.cohort_scores(self._rows(vectors), names, **changes)

    def standardised_conditions(self, rows: Tensor) -> Tensor:
        """Conditions (N, d_cond) as the density sees them, of rows as the network gives them."""
        return _as_rows(_scale(as_map(rows), self.c_mean, self.c_std))

    def _rows(self, vectors: Tensor) -> Tensor:
        return _as_rows(self._standardised(as_map(vectors), None, False, None)[0])

    def _standardised(
        self, y: Tensor, c: Tensor | None, noisy: bool, generator: NoiseSource
    ) -> tuple[Tensor, Tensor | None]:
        # A tracer knows shapes alone.
        if not torch.compiler.is_compiling() and not self.has_statistics:
            raise RuntimeError("collect statistics (accumulate, finish_statistics) before use")
        sigma = self.noise if noisy else 0.0
        y = _add_noise(_scale(y, self.y_mean, self.y_std), sigma, generator)
        if c is not None:
            c = _add_noise(_scale(c, self.c_mean, self.c_std), sigma, generator)
        return y, c


def as_map(rows: Tensor) -> Tensor:
    """(N, k) -> (1, k, N, 1, 1)."""
    return rows.T[None, :, :, None, None]


def _as_rows(maps: Tensor) -> Tensor:
    """(1, k, N, 1, 1) -> (N, k)."""
    return maps[0, :, :, 0, 0].T


def _scale(maps: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    shape = (1, -1, 1, 1, 1)
    return (maps.to(mean.dtype) - mean.view(shape)) / std.view(shape)


def _add_noise(maps: Tensor, sigma: float, generator: NoiseSource) -> Tensor:
    if sigma == 0.0:
        return maps
    if generator is None or isinstance(generator, torch.Generator):
        noise = _noise(maps, generator)
    else:
        parts = maps.split([count for _, count in generator], dim=2)
        drawn = [_noise(part, one) for part, (one, _) in zip(parts, generator, strict=True)]
        noise = torch.cat(drawn, dim=2)
    return maps + sigma * noise


def _noise(maps: Tensor, generator: torch.Generator | None) -> Tensor:
    # Drawn where the generator lives: a seed then means the same noise on every device.
    device = maps.device if generator is None else generator.device
    noise = torch.randn(maps.shape, generator=generator, dtype=maps.dtype, device=device)
    return noise.to(maps.device)
