"""NearestNeighboursDensity and its coreset against scikit-learn and loops in NumPy."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from screener_nnu.densities import fitted as fitted_module
from screener_nnu.densities import nearest
from screener_nnu.densities.k_center import greedy_k_center
from screener_nnu.densities.nearest import NearestNeighboursDensity
from screener_nnu.densities.neighbour_search import table_of_distances
from screener_nnu.errors import ScreenerError

torch.set_num_threads(1)


def sample(count, d=8, seed=0):
    random = np.random.default_rng(seed)
    return torch.tensor(random.normal(size=(count, d)) * np.linspace(2, 0.5, d)).float()


def fitted(rows, seed=0, **settings):
    density = NearestNeighboursDensity(rows.shape[1], **settings)
    density.fit(rows, None, torch.Generator().manual_seed(seed))
    return density.eval()


def scores(density, rows):
    return density.log_prob(rows.T[None, :, :, None, None]).flatten().numpy()


def awkward(rows):
    """Typical rows, rows of the bank, copies, a middle of two rows, far and very far rows."""
    middle = (rows[:1] + rows[1:2]) / 2
    far = rows[:20] + 100 * rows.std(0)
    return torch.cat([sample(300, rows.shape[1], 1), rows[:50], rows[:1], middle, far, 1e4 * far])


@pytest.mark.parametrize("neighbours", [1, 5, 9])
@pytest.mark.parametrize("count,d", [(9, 8), (200, 8), (900, 8), (900, 33)])
def test_equals_scikit_learn(count, d, neighbours):
    rows = sample(count, d)
    queries = awkward(rows) if count > 50 else sample(40, d, 1)
    search = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(rows.double().numpy())
    # Differences of coordinates, for the products of scikit-learn cancel as well.
    _, found = search.kneighbors(queries.double().numpy())
    gaps = queries.double().numpy()[:, None] - rows.double().numpy()[found]
    expected = -np.linalg.norm(gaps, axis=2).mean(1)
    actual = scores(fitted(rows, neighbours=neighbours), queries)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_row_of_the_bank_is_at_no_distance():
    rows = sample(1000)
    assert (scores(fitted(rows, neighbours=1), rows) == 0).all()


@pytest.mark.parametrize("d", [8, 33])
@pytest.mark.parametrize("neighbours", [1, 5])
def test_chunks_change_no_bit(d, neighbours, monkeypatch):
    rows = sample(900, d)
    rows[500:530] = rows[0]  # more copies than candidates
    queries = awkward(rows)
    density = fitted(rows, neighbours=neighbours)
    expected = scores(density, queries)
    for block in (1, 7, 26, 64, 1000):
        for chunk in (1, 13, 100):
            monkeypatch.setattr(nearest, "_CHUNK_BYTES", 4 * block * 900)
            monkeypatch.setattr(fitted_module, "_ROWS", chunk)
            assert np.array_equal(scores(density, queries), expected), (block, chunk)


def test_order_of_rows_and_neighbours_in_a_batch_change_no_bit():
    rows = sample(900)
    queries = awkward(rows)
    density = fitted(rows)
    expected = scores(density, queries)
    order = np.random.default_rng(3).permutation(len(queries))
    assert np.array_equal(scores(density, queries[order]), expected[order])
    alone = [scores(density, query[None])[0] for query in queries]
    assert np.array_equal(alone, expected)
    turned = fitted(rows[np.random.default_rng(3).permutation(900)])
    assert np.array_equal(scores(turned, queries), expected)


def compared_with_all(rows, queries, neighbours):
    """Mean of the smallest distances of a whole table."""
    nearest = table_of_distances(queries, rows).topk(neighbours, dim=1, largest=False).values
    return -(sum(nearest.unbind(1)) / neighbours).numpy()


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("place", [1, 1000])
def test_no_bit_is_lost_where_the_bank_nearly_coincides(noise, place):
    rows = place + noise * sample(2000)
    queries = place + noise * sample(300, seed=1)
    expected = compared_with_all(rows, queries, 5)
    assert np.array_equal(scores(fitted(rows), queries), expected)


@pytest.mark.parametrize("neighbours", [1, 5])
def test_no_bit_is_lost_far_from_the_bank(neighbours):
    rows = sample(900)
    queries = awkward(rows)
    expected = compared_with_all(rows, queries, neighbours)
    assert np.array_equal(scores(fitted(rows, neighbours=neighbours), queries), expected)


def test_scores_of_far_rows_are_finite_and_fall():
    rows = sample(900)
    far = torch.stack([rows[0] + step * rows.std(0) for step in (0, 10, 100, 1000)])
    values = scores(fitted(rows), far)
    assert np.isfinite(values).all() and (np.diff(values) < 0).all()


def greedy_by_hand(rows, count):
    rows = rows.double().numpy()
    chosen = [int(np.argmin(np.linalg.norm(rows - rows.mean(0), axis=1)))]
    while len(chosen) < count:
        gaps = [min(np.linalg.norm(row - rows[i]) for i in chosen) for row in rows]
        chosen.append(int(np.argmax(gaps)))
    return chosen


def test_greedy_choice_equals_loops():
    rows = sample(120)
    assert greedy_k_center(rows, 30).tolist() == greedy_by_hand(rows, 30)


@pytest.mark.parametrize("seed", range(5))
def test_radius_is_at_most_twice_the_best(seed):
    rows = sample(11, 2, seed)
    gaps = torch.cdist(rows, rows)

    def radius(chosen):
        return gaps[:, list(chosen)].amin(dim=1).max().item()

    best = min(radius(chosen) for chosen in combinations(range(11), 4))
    assert best <= radius(greedy_k_center(rows, 4).tolist()) <= 2 * best


def test_coreset_covers_better_than_a_random_one():
    rows = sample(3000, 3)
    radius = {
        kind: -scores(fitted(rows, bank=60, neighbours=1, coreset=kind), rows).min()
        for kind in ("k_center", "random")
    }
    assert radius["k_center"] < 0.6 * radius["random"]


def test_copies_are_chosen_once():
    rows = sample(40).repeat(5, 1)
    bank = fitted(rows, bank=100).bank
    assert len(bank) == 40
    assert len(torch.unique(bank, dim=0)) == 40
    same = fitted(torch.ones(30, 3), bank=10)
    assert same.bank.shape == (1, 3)
    np.testing.assert_allclose(scores(same, 3 * torch.ones(1, 3)), -2 * 3**0.5, rtol=1e-6)


def test_order_of_rows_does_not_count_in_the_coreset():
    rows = sample(500)
    order = torch.from_numpy(np.random.default_rng(4).permutation(500))
    first, second = fitted(rows, bank=50).bank, fitted(rows[order], bank=50).bank
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    "settings",
    [
        {"coreset": "random"},
        {"candidates": 100},
        {"projection": 3},
        {"candidates": 100, "projection": 3},
    ],
)
def test_equal_seeds_draw_equal_coresets(settings):
    rows = sample(500)
    first, again, other = (fitted(rows, seed, bank=60, **settings).bank for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    # Rows as they are, none twice, whatever they were chosen by.
    known = {tuple(row) for row in rows.tolist()}
    assert {tuple(row) for row in first.tolist()} <= known
    assert first.shape == (60, 8) and len(torch.unique(first, dim=0)) == 60


def test_small_sets_are_kept_whole():
    rows = sample(50)
    rows[10] = rows[11]
    density = fitted(rows, bank=50)
    assert torch.equal(density.bank, rows)
    rows.zero_()
    assert not density.bank.eq(0).all()


def test_needs_as_many_rows_as_neighbours():
    assert NearestNeighboursDensity(3, neighbours=7).least_rows == 7
    assert NearestNeighboursDensity(3, neighbours=1).least_rows == 2
    with pytest.raises(ScreenerError, match="6 positions are too few.*needs 7"):
        fitted(sample(6), neighbours=7)


@pytest.mark.parametrize(
    "settings,reason",
    [
        ({"cond_dim": 3}, "no condition.*condition.kind=none"),
        ({"bank": 4}, "neighbours must be at most bank"),
        ({"bank": 30, "candidates": 20}, "candidates must be at least bank"),
        ({"coreset": "greedy"}, "k_center or random"),
    ],
)
def test_refuses(settings, reason):
    with pytest.raises(ScreenerError, match=reason):
        NearestNeighboursDensity(3, **settings)
