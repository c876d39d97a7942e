"""MeanShiftDensity: positions against NumPy, banks, settings and state."""

import numpy as np
import pytest
import torch

from screener_nnu.densities import DENSITIES, build_density, density_class
from screener_nnu.densities.density_weights import density_weights
from screener_nnu.densities.enhanced import MeanShiftDensity
from screener_nnu.densities.mahalanobis import mahalanobis, new_gaussian
from screener_nnu.densities.vector_scores import COHORT
from screener_nnu.errors import ScreenerError
from screener_nnu.setting_values import parse

torch.set_num_threads(1)

NAMES = [f"scan {number}" for number in range(30)]


def rows_of(count, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator) * torch.linspace(0.3, 2, dim)


def as_map(rows):
    """One map of width 1 along two axes."""
    return rows.T[None, :, :, None, None]


def fitted(rows, seed=0, **settings):
    density = MeanShiftDensity(rows.shape[1], **settings)
    density.fit(rows, None, torch.Generator().manual_seed(seed))
    return density


def loop_scores(queries, path, weights, k, rate):
    """Ends and displacement of queries in NumPy."""
    ends, total = queries.astype(float), np.zeros(len(queries))
    for i in range(len(queries)):
        for points in path:
            near = np.argsort(((points - ends[i]) ** 2).sum(axis=1), kind="stable")[:k]
            mean = (weights[near, None] * points[near]).sum(axis=0) / weights[near].sum()
            total[i] += np.sqrt(((mean - ends[i]) ** 2).sum())
            ends[i] += rate * (mean - ends[i])
    return ends, total


def test_is_registered_with_no_likelihood():
    assert DENSITIES["msde"] is MeanShiftDensity is density_class("msde")
    density = build_density("msde", 5, 0, bank=100)
    assert density.fitted and density.unit == "none" and density.reach == 0
    assert density.settings.score == "displacement" and density.settings.bank == 100
    assert not list(density.parameters())


@pytest.mark.parametrize("score", ["displacement", "gaussian"])
@pytest.mark.parametrize("weights", ["uniform", "blocks"])
def test_scores_of_a_map_equal_numpy(score, weights):
    rows, queries = rows_of(240, 4), rows_of(24, 4, 1)
    density = fitted(rows, score=score, weights=weights)
    path = density.shift.trajectory.double().numpy()
    values = density.shift.weights.double().numpy()
    np.testing.assert_array_equal(path[0], rows.double().numpy())
    assert (weights == "uniform") == (values == 1).all()
    ends, displacement = loop_scores(queries.numpy(), path, values, 50, 0.33)
    if score == "displacement":
        expected = displacement
    else:
        shifted, _ = loop_scores(path[0], path, values, 50, 0.33)
        inverse = np.linalg.inv(np.cov(shifted.T) + 1e-4 * np.eye(4))
        gap = ends - shifted.mean(axis=0)
        expected = np.sqrt(np.einsum("ni,ij,nj->n", gap, inverse, gap))
    maps = queries.T.reshape(1, 4, 2, 3, 4)
    actual = density.log_prob(maps)
    assert actual.shape == (1, 2, 3, 4)
    np.testing.assert_allclose(-actual.numpy().ravel(), expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("score", ["displacement", "gaussian"])
def test_typical_is_higher_and_far_is_finite(score):
    density = fitted(rows_of(300, 4), score=score)
    far = torch.tensor([0.0, 10, 100, 1000])[:, None] * torch.ones(4)
    scores = density.log_prob(as_map(far)).flatten()
    assert scores.isfinite().all() and (scores.diff() < 0).all()


@pytest.mark.parametrize("score", ["displacement", "gaussian"])
@pytest.mark.parametrize("dim", [3, 32, 65])
def test_a_position_depends_on_no_other(score, dim):
    density = fitted(rows_of(400, dim), score=score)
    queries = rows_of(201, dim, 1)
    together = density.log_prob(as_map(queries)).flatten()
    order = torch.randperm(201)
    assert torch.equal(density.log_prob(as_map(queries[order])).flatten(), together[order])
    for i in (0, 100, 200):
        alone = density.log_prob(as_map(queries[i : i + 1])).flatten()
        assert torch.equal(alone, together[i : i + 1])


def test_bank_is_drawn_from_the_rows():
    rows = rows_of(500, 3)
    density = fitted(rows, bank=120)
    bank = density.shift.rows
    numbers = [int((rows == row).all(dim=1).nonzero()) for row in bank]
    assert len(bank) == 120 and numbers == sorted(set(numbers)) and max(numbers) > 400
    assert torch.equal(fitted(rows, bank=120).shift.rows, bank)
    assert not torch.equal(fitted(rows, seed=1, bank=120).shift.rows, bank)
    assert torch.equal(fitted(rows, bank=500).shift.rows, rows)


def test_blocks_are_drawn_or_taken_as_given():
    rows = rows_of(300, 3)
    given = fitted(rows, block_order="given")
    assert torch.equal(given.shift.weights, density_weights(rows, given.settings))
    assert not torch.equal(fitted(rows).shift.weights, given.shift.weights)
    assert not torch.equal(fitted(rows).shift.weights, fitted(rows, seed=1).shift.weights)


def test_second_fit_starts_anew():
    density = fitted(rows_of(300, 3))
    density.fit(rows_of(200, 3, 1), None, torch.Generator().manual_seed(4))
    expected = fitted(rows_of(200, 3, 1), seed=4).state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in density.state_dict().items())


@pytest.mark.parametrize("half", [True, False])
def test_state_comes_back(tmp_path, half):
    density = fitted(rows_of(150, 4), score="gaussian", half_trajectory=half)
    torch.save(density.state_dict(), tmp_path / "state.pth")
    other = MeanShiftDensity(4, score="gaussian", half_trajectory=half)
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    other.resize_to({f"density.{key}": value for key, value in state.items()}, "density.")
    for key, value in other.state_dict().items():
        assert (value.shape, value.dtype) == (state[key].shape, state[key].dtype), key
    other.load_state_dict(state)
    queries = as_map(rows_of(30, 4, 1))
    assert torch.equal(other.log_prob(queries), density.log_prob(queries))
    assert other.initialised and other.shift.trajectory.dtype == density.shift.trajectory.dtype


def test_conditions_and_too_few_rows_are_refused():
    with pytest.raises(ScreenerError, match="msde knows no conditions: choose condition.kind=none"):
        MeanShiftDensity(4, 2)
    with pytest.raises(ScreenerError, match="9 positions are too few"):
        fitted(rows_of(9, 3))


@pytest.mark.parametrize(
    "values,message",
    [
        ({"bank": 5}, "bank must be at least 10"),
        ({"score": "flow"}, "score must be displacement or gaussian"),
        ({"rate": 1.5}, "rate must be at least 0 and at most 1"),
        ({"k": 0}, "k must be at least 1"),
        ({"t": 0}, "t must be at least 1"),
        ({"graph_neighbours": 1}, "graph_neighbours must be at least 2"),
        ({"weights": "dense"}, "weights must be blocks or uniform"),
        ({"block_order": "sorted"}, "block_order must be random or given"),
        ({"ridge": 0}, "ridge must be above 0"),
        ({"speed": 1}, "speed"),
    ],
)
def test_settings_have_limits(values, message):
    with pytest.raises(ScreenerError, match=message):
        parse(MeanShiftDensity.Settings, values, "screener.density.options")
    with pytest.raises(ScreenerError, match=message):
        MeanShiftDensity(3, **values)


def test_published_settings_are_the_defaults():
    settings = MeanShiftDensity.Settings()
    assert (settings.k, settings.rate, settings.iterations, settings.tolerance) == (
        50,
        0.33,
        8,
        0.01,
    )
    assert (settings.t, settings.graph_neighbours, settings.levels) == (70, 15, 4)
    assert (settings.proportion, settings.components, settings.ridge) == (0.3, 256, 1e-4)
    assert (settings.weights, settings.block_order, settings.paper_bug) == (
        "blocks",
        "random",
        False,
    )


@pytest.mark.parametrize("count,dim", [(300, 5), (20, 40)])
def test_mahalanobis_distance_is_that_of_the_log_density(count, dim):
    gaussian = new_gaussian(dim, MeanShiftDensity.Settings(components=4))
    rows = rows_of(count, dim)
    gaussian.fit(rows, None, torch.Generator())
    queries = torch.cat([rows, rows_of(65, dim, 1)])
    distances = mahalanobis(gaussian, queries).double()
    assert gaussian.components.shape == (4, dim) and distances.shape == (count + 65,)
    log_density = gaussian.log_prob(as_map(queries)).flatten().double()
    peak = gaussian.log_prob(as_map(gaussian.mean[None])).item()
    torch.testing.assert_close(log_density, peak - distances.square() / 2, rtol=1e-4, atol=1e-4)


def test_a_state_without_vectors_comes_back():
    """As it was before there were scores of whole scans, and where scans are few."""
    density = fitted(rows_of(150, 4))
    density.fit_vectors(rows_of(30, 4, 2), NAMES)
    assert density.has_vector_scores and len(density.vector_scores(torch.zeros(4))) == 6
    older = {k: v for k, v in density.state_dict().items() if not k.startswith("vectors.")}
    other = fitted(rows_of(100, 4, 5))
    other.fit_vectors(rows_of(30, 4, 2), NAMES)
    other.resize_to(older)
    other.load_state_dict(older)
    assert not other.has_vector_scores and other.vector_scores(torch.zeros(4)) == {}
    queries = as_map(rows_of(30, 4, 1))
    assert torch.equal(other.log_prob(queries), density.log_prob(queries))
    other.load_state_dict(density.state_dict())
    assert other.vector_scores(torch.ones(4)) == density.vector_scores(torch.ones(4))


def test_few_scans_give_no_vectors(caplog):
    density = fitted(rows_of(150, 4))
    with caplog.at_level("INFO"):
        odd = density.fit_vectors(rows_of(9, 4), NAMES[:9])
    assert not density.has_vector_scores and "9 training scans are too few" in caplog.text
    assert odd == [] and density.cohort_scores(rows_of(2, 4), NAMES[:2]) == [{}, {}]
    needed = fitted(rows_of(150, 4), needs_vectors=True)
    with pytest.raises(ScreenerError, match="9 training vectors are too few"):
        needed.fit_vectors(rows_of(9, 4), NAMES[:9])


def test_scans_that_move_most_are_named():
    rows = rows_of(30, 4, 2)
    rows[7] += 9
    odd = fitted(rows_of(150, 4)).fit_vectors(rows, NAMES)
    assert odd[0] == "scan 7" and len(set(odd)) == 10


def test_scans_are_scored_together_with_the_settings_of_the_cohort():
    density = fitted(rows_of(150, 4))
    density.fit_vectors(rows_of(130, 4, 2), [f"scan {number}" for number in range(130)])
    queries = rows_of(20, 4, 3)
    expected = density.vectors.score(queries, COHORT, NAMES[:20])
    scores = density.cohort_scores(queries, NAMES[:20])
    assert [one["gaussian"] for one in scores] == expected["gaussian"].tolist()
    assert all(one["cohort"] is True and one["cohort_size"] == 20 for one in scores)
    for changes in ({"block_order": "given"}, {"paper_bug": True}, {"gaussian_on": "joint_train"}):
        other = density.cohort_scores(queries, NAMES[:20], **changes)
        assert [one["gaussian"] for one in other] != expected["gaussian"].tolist()
