"""Nearest rows against a loop, and the same bit by bit for any chunk."""

import numpy as np
import pytest
import torch

from screener_nnu.densities import neighbour_search
from screener_nnu.densities.neighbour_search import nearest_rows, table_of_distances

torch.set_num_threads(1)


def rows_of(count, dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.3, 2, dim, dtype=dtype)
    return torch.randn(count, dim, generator=generator, dtype=dtype) * spread


def loop_neighbours(queries, rows, k):
    """By distance, the first of equals first."""
    found = []
    for query in queries:
        distances = [float(np.sqrt(((query - row) ** 2).sum())) for row in rows]
        found.append(sorted(sorted(range(len(rows)), key=lambda i, d=distances: (d[i], i))[:k]))
    return np.array(found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_equal_a_loop_with_ties_and_duplicates(dtype):
    rows = rows_of(40, 3, dtype=dtype)
    rows[10:14] = rows[3]
    rows = torch.cat([rows, torch.tensor([[5.0, 0, 0], [-5, 0, 0], [0, 5, 0]], dtype=dtype)])
    queries = torch.cat([rows, rows_of(9, 3, 1, dtype), torch.zeros(1, 3, dtype=dtype)])
    for k in (1, 2, 3, 7, 42, 43):
        expected = loop_neighbours(queries.numpy(), rows.numpy(), k)
        np.testing.assert_array_equal(nearest_rows(queries, rows, k).numpy(), expected)


def test_equals_are_told_apart_by_their_number_however_small_the_difference():
    # By matrix products, 1e-13 between distances of 100 is lost.
    length = [100 + 1e-13, 100, 100, 100 - 1e-13]
    rows = torch.tensor([[a, 0.0] for a in length], dtype=torch.float64)
    query = torch.zeros(1, 2, dtype=torch.float64)
    assert nearest_rows(query, rows, 1).tolist() == [[3]]
    assert nearest_rows(query, rows, 2).tolist() == [[1, 3]]


@pytest.mark.parametrize("dim", [1, 3, 32, 257])
def test_chunks_change_no_bit(dim):
    rows, queries = rows_of(301, dim, dtype=torch.float32), rows_of(97, dim, 1, torch.float32)
    rows[200:240] = rows[:40]
    expected = nearest_rows(queries, rows, 20)
    for bytes_ in (1, 8 * 301 * 3, 8 * 301 * 50):
        assert torch.equal(nearest_rows(queries, rows, 20, bytes_), expected)
    for order in (torch.arange(96, -1, -1), torch.tensor([5])):
        assert torch.equal(nearest_rows(queries[order], rows, 20), expected[order])


def searched(monkeypatch, queries, rows, k, dtype=torch.float32):
    """What is found, and which of the queries are searched by a product alone."""
    unclear, real = [], neighbour_search._searched

    def watched(*given):
        found = real(*given)
        unclear.append(found[1])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(neighbour_search, "_searched", watched)
        found = nearest_rows(queries, rows, k, dtype=dtype)
    return found, ~torch.cat(unclear)


def from_table(queries, rows, k):
    order = table_of_distances(queries, rows).sort(dim=1, stable=True).indices
    return order[:, :k].sort(dim=1).values


@pytest.mark.parametrize("dtype,share", [(torch.float32, 0.97), (torch.float64, 1.0)])
@pytest.mark.parametrize("place", [0, 100])
def test_a_product_is_enough_for_typical_queries(place, dtype, share, monkeypatch):
    rows, queries = place + rows_of(3000, 8, 0, dtype), place + rows_of(500, 8, 1, dtype)
    found, certain = searched(monkeypatch, queries, rows, 5, dtype)
    assert certain.double().mean() >= share
    assert torch.equal(found, from_table(queries, rows, 5))


@pytest.mark.parametrize("distance", [1e4, 1e6, 1e8])
def test_far_queries_are_compared_with_all(distance, monkeypatch):
    rows, queries = rows_of(900, 8, 0, torch.float32), rows_of(200, 8, 1, torch.float32) + distance
    found, certain = searched(monkeypatch, queries, rows, 5)
    assert certain.float().mean() < 0.95
    assert torch.equal(found, from_table(queries, rows, 5))


@pytest.mark.parametrize("precision,bits", [("high", 10), ("medium", 7)])
def test_exact_where_products_are_allowed_to_round(precision, bits, monkeypatch):
    """Rounds the factors to so many bits behind the point, as accelerators do."""
    rows, queries = rows_of(900, 2, 0, torch.float32), rows_of(600, 2, 1, torch.float32)
    expected = nearest_rows(queries, rows, 1, dtype=torch.float32)
    product = torch.addmm

    def rounded(x):
        fraction, exponent = x.frexp()
        return (fraction * 2 ** (bits + 1)).round().ldexp(exponent - bits - 1)

    def coarse(start, a, b, alpha):
        return product(start, rounded(a), rounded(b), alpha=alpha)

    monkeypatch.setattr(torch, "addmm", coarse)
    found, certain = searched(monkeypatch, queries, rows, 1)
    assert not torch.equal(found, expected)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        found, fewer = searched(monkeypatch, queries, rows, 1)
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected) and fewer.sum() < certain.sum()


def test_neighbours_of_no_query_and_of_too_few_rows():
    rows = rows_of(4, 2)
    assert nearest_rows(rows[:0], rows, 3).shape == (0, 3)
    with pytest.raises(ValueError, match="5 neighbours of 4 rows"):
        nearest_rows(rows, rows, 5)
