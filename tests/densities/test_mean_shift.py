"""Mean shift of training rows and of queries against NumPy loops, bit by bit where that counts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from screener_nnu.densities.density_weights import density_weights
from screener_nnu.densities.mean_shift import (
    MeanShiftSettings,
    ReferenceShift,
    local_means,
    shift_together,
)
from screener_nnu.densities.neighbour_search import nearest_rows
from screener_nnu.errors import ScreenerError

torch.set_num_threads(1)
UNIFORM = MeanShiftSettings(weights="uniform")


def rows_of(count, dim, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.3, 2, dim, dtype=dtype)
    return torch.randn(count, dim, generator=generator, dtype=dtype) * spread


def clusters(seed=0, dtype=torch.float64):
    """Two of 60 points, 100 apart."""
    rows = rows_of(120, 3, seed, dtype)
    rows[60:, 0] += 100
    return rows


def loop_shift(rows, weights, k, rate, iterations, tolerance):
    """Positions, displacement and path, point by point in NumPy."""
    points, total, path = rows.copy(), np.zeros(len(rows)), []
    for _ in range(iterations):
        path.append(points.copy())
        moved, moves = points.copy(), np.zeros(len(rows))
        for i in range(len(rows)):
            near = sorted(range(len(rows)), key=lambda j, i=i: ((points[i] - points[j]) ** 2).sum())
            near = near[:k]
            mass = sum(weights[j] for j in near)
            mean = points[i]
            if mass > 0:
                mean = sum(weights[j] * points[j] for j in near) / mass
            moves[i] = np.sqrt(((mean - points[i]) ** 2).sum())
            moved[i] = points[i] + rate * (mean - points[i])
        points, total = moved, total + moves
        if moves.mean() < tolerance:
            break
    return points, total, np.array(path)


@pytest.mark.parametrize("count,dim,k", [(70, 4, 10), (40, 60, 50), (5, 3, 50)])
@pytest.mark.parametrize("weights", ["blocks", "uniform"])
def test_equals_a_double_loop(count, dim, k, weights):
    rows = rows_of(count, dim)
    settings = MeanShiftSettings(k=k, weights=weights, iterations=4)
    values = density_weights(rows, settings)
    shifted = shift_together(rows, values, settings)
    expected = loop_shift(rows.numpy(), values.numpy(), min(k, count // 2), 0.33, 4, 0.01)
    for actual, wanted in zip(shifted, expected, strict=True):
        np.testing.assert_allclose(actual.numpy(), wanted, atol=1e-6)
    assert shifted.displacement.min() > 0


def test_queries_equal_a_double_loop():
    rows, queries = rows_of(80, 4), rows_of(6, 4, 1)
    settings = MeanShiftSettings(k=10, iterations=3)
    shift = ReferenceShift(settings)
    path = shift.fit(rows).trajectory.numpy()
    weights = shift.weights.numpy()
    ends, moved = shift(queries)
    for query, end, total in zip(queries.numpy(), ends.numpy(), moved.numpy(), strict=True):
        distance = 0.0
        for points in path:
            near = np.argsort(((points - query) ** 2).sum(axis=1))[:10]
            mean = (weights[near, None] * points[near]).sum(axis=0) / weights[near].sum()
            distance += np.sqrt(((mean - query) ** 2).sum())
            query = query + 0.33 * (mean - query)
        np.testing.assert_allclose(end, query, atol=1e-6)
        assert total == pytest.approx(distance, abs=1e-6)


def test_rate_zero_moves_nothing():
    rows = rows_of(120, 4, dtype=torch.float32)
    shift = ReferenceShift(replace(UNIFORM, rate=0.0))
    shifted = shift.fit(rows)
    assert torch.equal(shifted.positions, rows) and torch.equal(shift.rows, rows)
    queries = rows_of(9, 4, 1, torch.float32)
    ends, displacement = shift(queries)
    assert torch.equal(ends, queries) and displacement.min() > 0


def test_all_neighbours_at_full_rate_meet_in_the_mean():
    rows = rows_of(30, 4)
    means = local_means(rows, rows, torch.ones(30).double(), 30)
    torch.testing.assert_close(means, rows.mean(dim=0).expand(30, 4))
    heavy = torch.arange(30).double()
    means = local_means(rows, rows, heavy, 30)
    expected = (heavy[:, None] * rows).sum(dim=0) / heavy.sum()
    torch.testing.assert_close(means, expected.expand(30, 4))


def test_far_clusters_keep_to_themselves():
    rows = clusters()
    shifted = shift_together(rows, torch.ones(120).double(), UNIFORM)
    for part in (slice(0, 60), slice(60, 120)):
        centre = rows[part].mean(dim=0)
        assert (shifted.positions[part] - centre).norm(dim=1).max() < 2
        spread = shifted.positions[part].std(dim=0).norm()
        assert spread < 0.3 * rows[part].std(dim=0).norm()


def test_rows_may_come_in_any_order():
    rows = rows_of(150, 4)
    order = torch.randperm(150)
    ones = torch.ones(150).double()
    shifted, other = shift_together(rows, ones, UNIFORM), shift_together(rows[order], ones, UNIFORM)
    torch.testing.assert_close(other.positions, shifted.positions[order], atol=1e-12, rtol=0)
    torch.testing.assert_close(other.displacement, shifted.displacement[order])


def test_a_point_among_weights_of_zero_stays():
    rows = clusters()
    weights = torch.ones(120).double()
    weights[60:] = 0
    shifted = shift_together(rows, weights, UNIFORM)
    assert torch.equal(shifted.positions[60:], rows[60:])
    assert shifted.displacement[60:].max() == 0 and shifted.displacement[:60].min() > 0


def test_stops_when_the_mean_move_is_small():
    rows = rows_of(100, 3)
    ones = torch.ones(100).double()
    few = shift_together(rows, ones, replace(UNIFORM, tolerance=1e9))
    assert len(few.trajectory) == 1 and not torch.equal(few.positions, rows)
    many = shift_together(rows, ones, replace(UNIFORM, tolerance=0.0, iterations=11))
    assert len(many.trajectory) == 11


def test_neighbours_are_half_of_the_rows_at_most(caplog):
    assert [UNIFORM.neighbours(n) for n in (2, 3, 5, 99, 100, 101, 5000)] == [
        1,
        1,
        2,
        49,
        50,
        50,
        50,
    ]
    shift = ReferenceShift(UNIFORM)
    shift.fit(rows_of(100, 3))
    assert not caplog.records
    shift.fit(rows_of(99, 3))
    assert "99 rows are few" in caplog.text and "49 neighbours, not by 50" in caplog.text


@pytest.mark.parametrize(
    "rows",
    [
        torch.cat([rows_of(60, 3)] * 2),
        torch.cat([rows_of(120, 3), torch.full((120, 1), 7.0).double()], dim=1),
        rows_of(5, 3),
        rows_of(2, 3),
        rows_of(20, 200),
        torch.ones(30, 4).double(),
    ],
    ids=["duplicated", "constant column", "five", "two", "d > n", "all equal"],
)
def test_awkward_rows(rows):
    shift = ReferenceShift(MeanShiftSettings())
    shifted = shift.fit(rows)
    assert all(part.isfinite().all() for part in shifted)
    ends, displacement = shift(rows)
    assert torch.equal(ends, shifted.positions)
    assert torch.equal(displacement, shifted.displacement)
    assert all(part.isfinite().all() for part in shift(rows, torch.arange(len(rows))))
    if len(rows) == 120 and rows.shape[1] == 4:
        torch.testing.assert_close(ends[:, 3], rows[:, 3])
    elif len(rows) == 120:
        assert torch.equal(ends[:60], ends[60:])


def test_one_row_is_refused():
    with pytest.raises(ScreenerError, match="a mean shift needs two rows, but got 1: give more"):
        ReferenceShift(UNIFORM).fit(rows_of(1, 3))


@pytest.mark.parametrize("dim", [1, 7, 64, 300])
@pytest.mark.parametrize("weights", ["uniform", "blocks"])
def test_a_query_depends_on_no_other(dim, weights):
    rows, queries = rows_of(260, dim, dtype=torch.float32), rows_of(100, dim, 1, torch.float32)
    queries[50] = queries[51]
    shift = ReferenceShift(MeanShiftSettings(weights=weights))
    shift.fit(rows)
    together = shift(queries)
    order = torch.randperm(100)
    for expected, actual in zip(together, shift(queries[order]), strict=True):
        assert torch.equal(actual, expected[order])
    for i in (0, 37, 50, 99):
        for expected, actual in zip(together, shift(queries[i : i + 1]), strict=True):
            assert torch.equal(actual, expected[i : i + 1])


def test_a_training_row_takes_its_own_path_unless_it_is_left_out():
    rows = rows_of(400, 5, dtype=torch.float32)
    shift = ReferenceShift(MeanShiftSettings())
    shifted = shift.fit(rows)
    ends, displacement = shift(rows)
    assert torch.equal(ends, shifted.positions)
    assert torch.equal(displacement, shifted.displacement)
    numbers = torch.arange(400)
    ends, displacement = shift(rows, numbers)
    spread = local_spread(rows)
    gap = (ends - shifted.positions).norm(dim=1)
    assert 0 < gap.max() and (gap < spread).all()
    # Without themselves, rows are further from the mean of their neighbours.
    assert displacement.mean() > shifted.displacement.mean()


def local_spread(rows):
    """Root mean square distance of the 50 neighbours of each row to their mean."""
    index = nearest_rows(rows, rows, 50)
    near = rows[index]
    return (near - near.mean(dim=1, keepdim=True)).square().sum(dim=2).mean(dim=1).sqrt()


def test_left_out_rows_are_no_neighbours():
    rows = rows_of(30, 2)
    ones, numbers = torch.ones(30).double(), torch.arange(30)
    means = local_means(rows, rows, ones, 4, numbers)
    for i in range(30):
        others = torch.cat([rows[:i], rows[i + 1 :]])
        near = others[nearest_rows(rows[i : i + 1], others, 4)[0]]
        torch.testing.assert_close(means[i], near.mean(dim=0))
    # Nor does a row that is far away anyway change anything.
    far = torch.cdist(rows, rows).argmax(dim=1)
    plain = local_means(rows, rows, ones, 4)
    torch.testing.assert_close(local_means(rows, rows, ones, 4, far), plain)


def test_a_far_query_moves_farther():
    shift = ReferenceShift(MeanShiftSettings())
    rows = rows_of(200, 4, dtype=torch.float32)
    shift.fit(rows)
    far = torch.tensor([1.0, 10, 100, 1000])[:, None] * torch.ones(4)
    ends, displacement = shift(far)
    assert ends.isfinite().all() and (displacement.diff() > 0).all()
    assert displacement[2] > 100


def test_float16_path_changes_little():
    rows, queries = rows_of(400, 40, dtype=torch.float32), rows_of(50, 40, 1, torch.float32)
    full = ReferenceShift(MeanShiftSettings())
    half = ReferenceShift(MeanShiftSettings(half_trajectory=True))
    full.fit(rows), half.fit(rows)
    assert half.trajectory.dtype == torch.float16
    expected, actual = full(queries)[1], half(queries)[1]
    assert not torch.equal(expected, actual)
    error = ((actual - expected) / expected).abs()
    # Larger only where another row becomes a neighbour.
    assert error.quantile(0.9) < 1e-5 and error.mean() < 1e-3 and error.max() < 1e-2


@pytest.mark.parametrize("half", [True, False])
def test_state_is_tensors_and_comes_back(tmp_path, half):
    settings = MeanShiftSettings(half_trajectory=half)
    shift = ReferenceShift(settings)
    shift.fit(rows_of(120, 4, dtype=torch.float32))
    torch.save(shift.state_dict(), tmp_path / "state.pth")
    other = ReferenceShift(settings)
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    queries = rows_of(9, 4, 1, torch.float32)
    for expected, actual in zip(shift(queries), other(queries), strict=True):
        assert torch.equal(actual, expected)
