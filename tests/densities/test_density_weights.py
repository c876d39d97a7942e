"""Density weights and their fuzzy graph against NumPy loops of the described rules."""

import math

import numpy as np
import pytest
import torch

from screener_nnu.densities import density_weights as weighing
from screener_nnu.densities.density_weights import (
    WeightSettings,
    bandwidths,
    dense_radius,
    density_weights,
    fuzzy_graph,
    order_keys,
)
from screener_nnu.densities.neighbour_search import table_of_distances

torch.set_num_threads(1)


def rows_of(count, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.3, 2, dim, dtype=torch.float64)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) * spread


def loop_graph(rows, neighbours):
    """Fuzzy graph of the specification, point by point; bisection to the last bit."""
    count = len(rows)
    q = min(neighbours, count)
    directed = np.zeros((count, count))
    for i in range(count):
        distances = np.sqrt(((rows - rows[i]) ** 2).sum(axis=1))
        others = sorted((j for j in range(count) if j != i), key=lambda j, d=distances: d[j])
        others = others[: q - 1]
        nearest = min(distances[j] for j in others if distances[j] > 0)

        beyond = np.maximum(0, distances[others] - nearest)
        low, high = 1e-12, 1e3
        for _ in range(100):
            middle = (low + high) / 2
            above = np.exp(-beyond / middle).sum() > math.log2(q)
            low, high = (low, middle) if above else (middle, high)
        scale = max(high, 1e-3 * sum(distances[j] for j in others) / q)
        for j in others:
            directed[i, j] = math.exp(-max(0.0, distances[j] - nearest) / scale)
    return directed + directed.T - directed * directed.T


def loop_radius(distances, t, proportion, paper_bug=False):
    """Smallest of all distances for which the rule holds."""
    size = len(distances)
    t = min(t, size - 1)
    for needed, part in ((t, proportion), (t / 2, proportion / 2)):
        for radius in sorted(distances[~np.eye(size, dtype=bool)]):
            dense = np.flatnonzero((distances <= radius).sum(axis=1) - 1 > needed)
            gain = dense.sum() if paper_bug else len(dense)
            if gain >= part * size:
                return radius
    return distances.max()


def loop_weights(rows, settings):
    graph = loop_graph(rows, settings.graph_neighbours)
    distances = np.sqrt(((graph[:, None] - graph[None]) ** 2).sum(axis=2))
    radius = loop_radius(distances, settings.t, settings.proportion, settings.paper_bug)
    counts = np.zeros(len(rows))
    for level in range(settings.levels):
        near = distances <= radius * (1 - level / settings.levels)
        counts += near.sum(axis=1) - 1
    return counts / settings.levels


@pytest.mark.parametrize("count,dim", [(100, 5), (46, 2), (12, 8), (5, 3), (2, 1)])
def test_fuzzy_graph_equals_a_loop(count, dim):
    rows = rows_of(count, dim)
    graph, alone = fuzzy_graph(table_of_distances(rows, rows), 15)
    np.testing.assert_allclose(graph.numpy(), loop_graph(rows.numpy(), 15), atol=1e-5)
    assert not alone.any() and torch.equal(graph, graph.T)
    assert graph.diagonal().abs().max() == 0 and graph.max() <= 1


def test_bisection_reaches_its_target_and_scales():
    beyond = rows_of(200, 14).abs()
    beyond = beyond - beyond.min(dim=1, keepdim=True).values
    target = math.log2(15)
    scales = bandwidths(beyond, target)
    sums = (-beyond / scales[:, None]).exp().sum(dim=1)
    assert (sums - target).abs().max() < 1e-5
    # Half of the target's tolerance moves a scale by some 1e-5 of it.
    torch.testing.assert_close(bandwidths(1000 * beyond, target), 1000 * scales, rtol=1e-4, atol=0)
    assert (bandwidths(1.1 * beyond, target) > scales).all()


def test_distances_that_are_all_equal():
    distances = torch.ones(20, 20).double().fill_diagonal_(0)
    graph, alone = fuzzy_graph(distances, 15)
    assert not alone.any()
    # A neighbour at the least distance is a full member.
    assert set(graph.unique().tolist()) == {0.0, 1.0}
    assert bandwidths(torch.zeros(1, 14).double(), math.log2(15)).item() < 1e-15


def test_no_neighbourhood_is_narrower_than_a_thousandth_of_its_mean_distance():
    distances = torch.full((15, 15), 1.0005, dtype=torch.float64).fill_diagonal_(0)
    distances[0, 1:6] = distances[1:6, 0] = 1
    graph, _ = fuzzy_graph(distances, 15)
    # Five neighbours at the least distance are more than log2(15) already.
    member = math.exp(-0.0005 / (1e-3 * distances[0].mean().item()))
    assert graph[0, 1] == 1 and 0.5 < member < 0.6
    # Of the others, point 0 is a full member.
    assert graph[0, 6] == 1
    distances[6, 0] = 2
    expected = member + math.exp(-0.9995 / (1e-3 * distances[6].mean().item())) * (1 - member)
    assert fuzzy_graph(distances, 15)[0][0, 6].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("settings", [WeightSettings(), WeightSettings(t=8, levels=3)])
@pytest.mark.parametrize("count", [144, 100, 60, 12, 5, 2])
def test_weights_equal_a_loop(count, settings):
    rows = rows_of(count, 4)
    weights = density_weights(rows, settings)
    np.testing.assert_allclose(weights.numpy(), loop_weights(rows.numpy(), settings), rtol=1e-12)
    assert count < 12 or len(weights.unique()) > 3


def test_paper_bug_equals_a_loop_of_its_rule_and_differs():
    rows = rows_of(100, 4)
    settings = WeightSettings(paper_bug=True)
    weights = density_weights(rows, settings)
    np.testing.assert_allclose(weights.numpy(), loop_weights(rows.numpy(), settings), rtol=1e-12)
    # One or two points in dense places suffice, so that the radius is smaller.
    assert weights.sum() < 0.9 * density_weights(rows, WeightSettings()).sum()


def test_radius_equals_bisection_and_falls_back():
    between = table_of_distances(rows_of(90, 3), rows_of(90, 3))
    radius = dense_radius(between, WeightSettings()).item()

    def holds(r):
        return ((between <= r).sum(dim=1) - 1 > 70).sum() >= 0.3 * 90

    low, high = between[between > 0].min().item(), between.max().item()
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    assert radius == pytest.approx(high, abs=1e-4) and holds(radius)
    assert radius == pytest.approx(loop_radius(between.numpy(), 70, 0.3), abs=0)
    # Below 71 points nobody has more than t others: half of both is asked for.
    small = between[:60, :60]
    assert dense_radius(small, WeightSettings()) == dense_radius(
        small, WeightSettings(t=29, proportion=0.15)
    )
    pair = between[:2, :2]
    assert dense_radius(pair, WeightSettings(t=1)) == pair.max()


@pytest.mark.parametrize(
    "count,sizes",
    [(2, [2]), (99, [99]), (144, [144]), (145, [100, 45]), (244, [100, 144]), (300, [100] * 3)],
)
def test_blocks(count, sizes):
    blocks = list(weighing._blocks(torch.arange(count)))
    assert [len(block) for block in blocks] == sizes
    assert torch.equal(torch.cat(blocks), torch.arange(count))


def test_uniform_and_given_and_random_orders():
    rows = rows_of(230, 3)
    names = [f"case {i}" for i in range(230)]
    order = torch.randperm(230)
    renamed = [names[i] for i in order.tolist()]
    keys, moved = order_keys(names, 42), order_keys(renamed, 42)

    random = density_weights(rows, WeightSettings(), keys)
    assert torch.equal(density_weights(rows[order], WeightSettings(), moved), random[order])
    assert not torch.equal(density_weights(rows, WeightSettings(), order_keys(names, 43)), random)
    other = [name + "b" for name in names]
    assert not torch.equal(density_weights(rows, WeightSettings(), order_keys(other, 42)), random)

    given = WeightSettings(block_order="given")
    as_given = density_weights(rows, given, keys)
    assert not torch.equal(as_given, random)
    assert torch.equal(as_given, density_weights(rows, WeightSettings()))
    assert not torch.equal(density_weights(rows[order], given, moved), as_given[order])
    # The weights of a block are those of its rows alone.
    assert torch.equal(as_given[:100], density_weights(rows[:100], given))

    uniform = WeightSettings(weights="uniform")
    assert torch.equal(density_weights(rows, uniform), torch.ones(230).double())


def test_points_that_coincide_get_the_mean_weight_of_the_others():
    rows = rows_of(100, 3)
    rows[:20] = rows[0]
    weights = density_weights(rows, WeightSettings())
    assert weights.isfinite().all()
    torch.testing.assert_close(weights[:20], weights[20:].mean().expand(20))
    # A pair of equals has neighbours elsewhere, and takes part.
    rows = rows_of(100, 3)
    rows[1] = rows[0]
    np.testing.assert_allclose(
        density_weights(rows, WeightSettings()).numpy(),
        loop_weights(rows.numpy(), WeightSettings()),
        rtol=1e-12,
    )
    assert torch.equal(density_weights(torch.ones(50, 3), WeightSettings()), torch.ones(50))
