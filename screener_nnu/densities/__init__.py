"""Densities of descriptor maps given condition maps."""

from typing import Any

from screener_nnu.densities.base import ConditionalDensity
from screener_nnu.densities.flow import FlowDensity
from screener_nnu.densities.gaussian import GaussianDensity
from screener_nnu.densities.standardised import StandardisedDensity
from screener_nnu.errors import ScreenerError

#: Density by the name that a plan uses.
DENSITIES: dict[str, type[ConditionalDensity]] = {
    "gaussian": GaussianDensity,
    "flow": FlowDensity,
}


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
    if name not in DENSITIES:
        known = ", ".join(sorted(DENSITIES))
        raise ScreenerError(f"there is no density '{name}'; known: {known}")
    return DENSITIES[name](dim, cond_dim, **settings)


__all__ = [
    "DENSITIES",
    "ConditionalDensity",
    "FlowDensity",
    "GaussianDensity",
    "StandardisedDensity",
    "build_density",
]
