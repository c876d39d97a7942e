"""How dense it is around each row: weights of the mean shift from blocks of a fuzzy graph."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from screener_nnu.densities.neighbour_search import table_of_distances
from screener_nnu.setting_values import Fraction, OneOf, Within

_BLOCK, _LEAST_BLOCK = 100, 45
_BISECTIONS, _BISECTION_TOLERANCE = 64, 1e-5
# Of the mean distance of a row: no neighbourhood is narrower.
_LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class WeightSettings:
    """Settings of the density weights; the defaults are the published ones but for the order.

    Attributes:
        weights: `blocks`, the published weights, or `uniform`, all one.
        block_order: `random` cuts blocks from a random order, `given` from that of the rows.
        t: a point is in a dense place if more than so many others are near.
        graph_neighbours: of the fuzzy graph, the point itself included.
        proportion: of a block's points that must be in dense places.
        levels: radii that neighbours are counted in.
        paper_bug: sum the numbers of the points in dense places, as the public code does, where
            they are meant to be counted; a single point may then suffice.
    """

    weights: Annotated[str, OneOf("blocks", "uniform")] = "blocks"
    block_order: Annotated[str, OneOf("random", "given")] = "random"
    t: Annotated[int, Within(at_least=1)] = 70
    graph_neighbours: Annotated[int, Within(at_least=2)] = 15
    proportion: Fraction = 0.3
    levels: Annotated[int, Within(at_least=1)] = 4
    paper_bug: bool = False


def order_keys(names: Sequence[str], seed: int) -> Tensor:
    """Numbers whose order is a random one of the names; a name's own depends on no other name.

    Args:
        names: of n rows.
        seed: another one gives another order.

    Returns:
        (n,), int64.

    Example:
        >>> a, b = order_keys(["a", "b"], 0)
        >>> [bool(x == y) for x, y in zip(order_keys(["b", "a", "c"], 0), (b, a))]
        [True, True]
    """
    digests = (hashlib.sha256(f"{seed} {name}".encode()).digest() for name in names)
    numbers = [int.from_bytes(digest[:8], "big", signed=True) for digest in digests]
    return torch.tensor(numbers, dtype=torch.int64)


@torch.no_grad()
def density_weights(rows: Tensor, settings: WeightSettings, keys: Tensor | None = None) -> Tensor:
    """Weight of each row: the mean number of others within four radii, in its block of a graph.

    References:
        Kar, Lakshmi S, Bej, Improved Anomaly Detection in Medical Images via Mean Shift Density
        Enhancement (https://arxiv.org/abs/2604.19191).

    Args:
        rows: (n, d), n >= 2.
        settings: of the weights.
        keys: whose order the blocks are cut from if the order is `random`, see `order_keys`;
            `None` for the order of the rows.

    Returns:
        (n,), not negative, in the precision of the rows.
    """
    weights = rows.new_ones(len(rows))
    if settings.weights == "uniform":
        return weights
    order = torch.arange(len(rows), device=rows.device)
    if settings.block_order == "random" and keys is not None:
        order = keys.to(rows.device).argsort(stable=True)
    for block in _blocks(order):
        weights[block] = _weights_of_block(rows[block].double(), settings).to(rows.dtype)
    return weights


def _blocks(order: Tensor) -> Iterator[Tensor]:
    """Cuts into blocks of 100; a last one shorter than 45 joins the one before."""
    count = max(len(order) // _BLOCK + (len(order) % _BLOCK >= _LEAST_BLOCK), 1)
    for number in range(count):
        last = number == count - 1
        yield order[number * _BLOCK : None if last else (number + 1) * _BLOCK]


def _weights_of_block(rows: Tensor, settings: WeightSettings) -> Tensor:
    """Weights (m,) of the rows (m, d) of one block, float64."""
    distances = table_of_distances(rows, rows)
    graph, alone = fuzzy_graph(distances, settings.graph_neighbours)
    between = table_of_distances(graph, graph)
    radius = dense_radius(between, settings)
    factors = [1 - level / settings.levels for level in range(settings.levels)]
    # Itself is no other point.
    within = torch.stack([(between <= radius * f).sum(dim=1) - 1 for f in factors])
    weights = within.double().mean(dim=0)
    # Of points that coincide with all their neighbours, the graph knows nothing.
    rest = weights[~alone]
    weights[alone] = rest.mean() if len(rest) else 1.0
    return weights


def fuzzy_graph(distances: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """Fuzzy neighbour graph of points, as in UMAP.

    References:
        McInnes, Healy, Melville, UMAP: Uniform Manifold Approximation and Projection for
        Dimension Reduction (https://arxiv.org/abs/1802.03426), section 3.1.

    Args:
        distances: (m, m), float64.
        neighbours: of a point, itself included.

    Returns:
        Memberships, symmetric, in [0, 1], zero on the diagonal, (m, m); and which points have
        neighbours at distance 0 only, (m,).
    """
    others = min(neighbours, len(distances)) - 1
    far = distances.clone().fill_diagonal_(math.inf)
    near, index = (part[:, :others] for part in far.sort(dim=1, stable=True))
    nearest = torch.where(near > 0, near, math.inf).min(dim=1).values
    alone = nearest.isinf()
    nearest = torch.where(alone, 0.0, nearest)
    # The mean counts the point itself, at distance 0.
    row_mean = near.sum(dim=1) / (others + 1)
    floor = _LEAST_SCALE * torch.where(alone, row_mean.mean(), row_mean)
    beyond = (near - nearest[:, None]).clamp(min=0)
    scales = torch.maximum(bandwidths(beyond, math.log2(others + 1)), floor)
    scales = scales.clamp(min=torch.finfo(scales.dtype).tiny)
    directed = torch.zeros_like(distances).scatter_(1, index, (-beyond / scales[:, None]).exp())
    return directed + directed.T - directed * directed.T, alone


def bandwidths(beyond: Tensor, target: float) -> Tensor:
    """Scale s of each row, by bisection, for which the sum of exp(-beyond / s) is the target.

    Where no scale reaches it, since too many entries are 0, the scale tends to 0.

    Args:
        beyond: distances beyond the nearest one, not negative, (m, q), float64.
        target: of the sums.

    Returns:
        (m,); the sums miss the target by less than 1e-5 where they can.
    """
    low = beyond.new_zeros(len(beyond))
    high = torch.full_like(low, math.inf)
    scale = torch.ones_like(low)
    for _ in range(_BISECTIONS):
        gap = (-beyond / scale[:, None]).exp().sum(dim=1) - target
        open_ = gap.abs() >= _BISECTION_TOLERANCE
        if not open_.any():
            break
        high = torch.where(open_ & (gap > 0), scale, high)
        low = torch.where(open_ & (gap < 0), scale, low)
        middle = torch.where(high.isinf(), 2 * scale, (low + high) / 2)
        scale = torch.where(open_, middle, scale)
    return scale


def dense_radius(distances: Tensor, settings: WeightSettings) -> Tensor:
    """Smallest radius at which enough points have more than t others within it.

    It is one of the distances, so that it is found by sorting and not by bisection. If no radius
    will do, half of t and half of the proportion are tried, and then the largest distance is taken.

    Args:
        distances: (m, m), zero on the diagonal.
        settings: `t`, `proportion` and `paper_bug` of them.

    Returns:
        A number.
    """
    size = len(distances)
    t = min(settings.t, size - 1)
    # Column 0 is the point itself, so that column i is the radius that holds i others.
    ordered = distances.clone().fill_diagonal_(-1).sort(dim=1).values
    for needed, proportion in (
        (t, settings.proportion),
        (t // 2, settings.proportion / 2),
    ):
        if needed + 1 >= size:
            continue
        entry, points = ordered[:, needed + 1].sort(stable=True)
        gain = points if settings.paper_bug else torch.ones_like(points)
        enough = gain.cumsum(0) >= proportion * size
        if enough.any():
            return entry[enough.int().argmax()]
    return distances.max()
