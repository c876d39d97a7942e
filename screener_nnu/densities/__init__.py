"""Densities of descriptor maps given condition maps."""

from typing import Any

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.densities.enhanced import MeanShiftDensity
from screener_nnu.densities.experts import ExpertsDensity
from screener_nnu.densities.fitted import FittedDensity
from screener_nnu.densities.flow import FlowDensity
from screener_nnu.densities.full_gaussian import FullGaussianDensity
from screener_nnu.densities.gaussian import GaussianDensity
from screener_nnu.densities.gaussian_pca import GaussianPcaDensity
from screener_nnu.densities.nearest import NearestNeighboursDensity
from screener_nnu.densities.standardised import StandardisedDensity
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import DensitySettings

#: Density by the name that a plan uses.
DENSITIES: dict[str, type[ConditionalDensity]] = {
    "gaussian": GaussianDensity,
    "flow": FlowDensity,
    "experts": ExpertsDensity,
    "full_gaussian": FullGaussianDensity,
    "gaussian_pca": GaussianPcaDensity,
    "knn": NearestNeighboursDensity,
    "msde": MeanShiftDensity,
}


def density_class(name: str) -> type[ConditionalDensity]:
    """The density of a name.

    Raises:
        ScreenerError: the name is not known.
    """
    if name not in DENSITIES:
        known = ", ".join(sorted(DENSITIES))
        raise ScreenerError(f"there is no density '{name}'; known: {known}")
    return DENSITIES[name]


def new_density(settings: DensitySettings, dim: int, cond_dim: int) -> StandardisedDensity:
    """The density of a plan's settings, standardised, not yet initialised."""
    density = density_class(settings.kind).of_plan(dim, cond_dim, settings)
    return StandardisedDensity(density, settings.noise)


def build_density(name: str, dim: int, cond_dim: int, **settings: Any) -> ConditionalDensity:
    """Builds a density by name.

    Args:
        name: a key of `DENSITIES`.
        dim: channels d of the descriptor map.
        cond_dim: channels d_cond of the condition map; 0 for an unconditional density.
        **settings: of that density.

    Raises:
        ScreenerError: the name is not known.

    Example:
        >>> type(build_density("gaussian", 32, 0)).__name__
        'GaussianDensity'
    """
    return density_class(name)(dim, cond_dim, **settings)


__all__ = [
    "DENSITIES",
    "ConditionalDensity",
    "FlowDensity",
    "GaussianDensity",
    "StandardisedDensity",
    "build_density",
    "FittedDensity",
    "new_density",
]
