"""VectorScores: columns against NumPy and scikit-learn, modes, refusals, measured figures."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from screener_nnu.densities.density_weights import density_weights, order_keys
from screener_nnu.densities.mean_shift import shift_together
from screener_nnu.densities.vector_scores import (
    COHORT,
    REFERENCE,
    VectorScores,
    VectorScoreSettings,
)
from screener_nnu.errors import ScreenerError

torch.set_num_threads(1)
_study = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "study_prevalence.py"))
COLUMNS = {
    *("gaussian", "displacement", "rank_mean", "plain", "distance", "knn", "cohort"),
    "cohort_size",
}


def vectors_of(count, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dim, generator=generator) * torch.linspace(0.3, 20, dim) + 5


def fitted(count=200, dim=6, names=None, **settings):
    scores = VectorScores(dim, VectorScoreSettings(**settings))
    scores.fit(vectors_of(count, dim), names)
    return scores


def mahalanobis(fit, queries, components):
    """Of scikit-learn's components, with an explicit inverse."""
    pca = PCA(components, svd_solver="full").fit(fit)
    projected = pca.transform(fit)
    inverse = np.linalg.inv(np.cov(projected.T) + 1e-4 * np.eye(components))
    gap = pca.transform(queries) - projected.mean(axis=0)
    return np.sqrt(np.einsum("ni,ij,nj->n", gap, inverse, gap))


@pytest.mark.parametrize("components", [6, 3])
def test_columns_equal_scikit_learn(components):
    train, queries = vectors_of(200, 6), vectors_of(40, 6, 1) + 2
    scores = fitted(components=components)
    columns = scores.score(queries)
    assert set(columns) == COLUMNS and all(len(column) == 40 for column in columns.values())
    scaler = StandardScaler().fit(train.double())
    rows, scaled = scaler.transform(train.double()), scaler.transform(queries.double())
    expected = mahalanobis(rows, scaled, components)
    np.testing.assert_allclose(columns["plain"].numpy(), expected, rtol=1e-4)
    np.testing.assert_allclose(
        columns["distance"].numpy(), np.linalg.norm(scaled, axis=1), rtol=1e-5
    )
    nearest = NearestNeighbors(n_neighbors=5).fit(rows).kneighbors(scaled)[0].mean(axis=1)
    np.testing.assert_allclose(columns["knn"].numpy(), nearest, rtol=1e-4)

    shifted = shift_together(scores.shift.rows, scores.shift.weights, scores.settings).positions
    ends, displacement = scores.shift(torch.tensor(scaled, dtype=torch.float32))
    expected = mahalanobis(shifted.double().numpy(), ends.double().numpy(), components)
    np.testing.assert_allclose(columns["gaussian"].numpy(), expected, rtol=1e-3)
    np.testing.assert_allclose(columns["displacement"].numpy(), displacement.numpy(), rtol=1e-3)
    assert next(iter(columns)) == "displacement"
    assert not columns["cohort"].any() and (columns["cohort_size"] == 1).all()


def test_without_a_shift_the_gaussian_is_the_plain_one():
    scores = fitted(rate=0.0)
    for mode in (REFERENCE, COHORT):
        columns = scores.score(vectors_of(40, 6, 1), mode)
        assert torch.equal(columns["gaussian"], columns["plain"])


@pytest.mark.parametrize("dim", [1, 6, 300])
def test_reference_scores_depend_on_no_other_vector(dim):
    scores = fitted(dim=dim)
    queries = vectors_of(100, dim, 1)
    together, order = scores.score(queries), torch.randperm(100)
    reordered = scores.score(queries[order], names=[f"other {i}" for i in range(100)])
    alone = [scores.score(queries[i : i + 1]) for i in range(0, 100, 9)]
    for name in COLUMNS:
        assert torch.equal(reordered[name], together[name][order]), name
        assert torch.equal(torch.cat([columns[name] for columns in alone]), together[name][::9])


def test_cohort_is_the_joint_shift_and_says_so(caplog):
    names, others = [f"train {i}" for i in range(200)], [f"test {i}" for i in range(60)]
    scores, queries = fitted(names=names), vectors_of(60, 6, 1)
    assert not caplog.records
    columns = scores.score(queries, COHORT, others)
    assert "These scores depend on the other images of this batch (60)." in caplog.text
    assert "another share of anomalies gives other scores to the same image" in caplog.text
    assert next(iter(columns)) == "gaussian"
    assert columns["cohort"].all() and (columns["cohort_size"] == 60).all()

    together = torch.cat([scores.shift.rows, (queries - scores.mean) / scores.std])
    weights = density_weights(together, scores.settings, order_keys(names + others, 42))
    joint = shift_together(together, weights, scores.settings)
    torch.testing.assert_close(columns["displacement"], joint.displacement[200:])
    own = shift_together(scores.shift.rows, scores.shift.weights, scores.settings).positions
    ends = joint.positions.double().numpy()
    expected = mahalanobis(own.double().numpy(), ends[200:], 6)
    np.testing.assert_allclose(columns["gaussian"].numpy(), expected, rtol=1e-3)
    scores.settings = VectorScoreSettings(gaussian_on="joint_train")
    columns = scores.score(queries, COHORT, others)
    expected = mahalanobis(ends[:200], ends[200:], 6)
    np.testing.assert_allclose(columns["gaussian"].numpy(), expected, rtol=1e-3)


def test_cohort_depends_on_its_members_and_by_default_not_on_their_order():
    queries, names = vectors_of(160, 6, 1), [f"test {i}" for i in range(160)]
    order = torch.randperm(160)
    renamed = [names[i] for i in order.tolist()]
    for block_order, same in (("random", True), ("given", False)):
        scores = fitted(block_order=block_order)
        whole = scores.score(queries, COHORT, names)["displacement"]
        moved = scores.score(queries[order], COHORT, renamed)["displacement"]
        assert torch.allclose(moved, whole[order], rtol=1e-4) == same
        part = scores.score(queries[:80], COHORT, names[:80])["displacement"]
        assert not torch.allclose(part, whole[:80], rtol=1e-4)


def test_one_vector_is_no_cohort(caplog):
    scores, query = fitted(), vectors_of(1, 6, 1)
    columns, expected = scores.score(query, COHORT), scores.score(query)
    assert "One vector is no cohort" in caplog.text
    assert all(torch.equal(columns[name], expected[name]) for name in COLUMNS)


def test_ranks_are_shares_of_the_training_scores_and_go_on_beyond_them():
    scores = fitted()
    queries = torch.cat([vectors_of(50, 6, 1), vectors_of(4, 6, 2) * torch.tensor([[50.0]])])
    columns = scores.score(queries)
    ranks = []
    for name, own in zip(("gaussian", "displacement"), scores.own_scores.numpy(), strict=True):
        values = columns[name].numpy()
        share = np.array([(own <= value).mean() for value in values])
        ranks.append(np.where(values > own.max(), values / own.max(), share))
    np.testing.assert_allclose(columns["rank_mean"].numpy(), np.mean(ranks, axis=0), rtol=1e-5)
    assert columns["rank_mean"][:50].median() < 0.9 and columns["rank_mean"][50:].min() > 1


def test_an_abnormal_training_vector_moves_most():
    train = vectors_of(200, 6)
    train[123] += 60
    scores = VectorScores(6)
    scores.fit(train)
    assert scores.most_displaced()[0] == 123 and len(scores.most_displaced(7)) == 7


def test_a_training_vector_that_comes_again_is_said(caplog):
    scores, queries = fitted(), vectors_of(20, 6, 1)
    queries[7] = vectors_of(200, 6)[150]
    columns = scores.score(queries)
    assert [r.getMessage() for r in caplog.records] == [
        "Training vectors come again and look typical: vector 7"
    ]
    assert all(column.isfinite().all() for column in columns.values())


def test_constant_columns_duplicates_and_more_columns_than_vectors():
    train = vectors_of(60, 200)
    train[:, 3], train[:, 5] = 4.1, 0.0
    train[:, 7] *= 1e-8
    train[10:30] = train[10]
    scores = VectorScores(200)
    scores.fit(train)
    assert scores.std[[3, 5]].tolist() == [1, 1] and scores.std[7] < 1e-6
    assert scores.mean[[3, 5]].tolist() == pytest.approx([4.1, 0])
    for mode in (REFERENCE, COHORT):
        columns = scores.score(torch.cat([train[:12], vectors_of(9, 200, 1)]), mode)
        assert all(column.isfinite().all() for column in columns.values())
    assert scores.score(train[10:11])["knn"] == 0


def test_a_far_vector_is_finite_and_grows():
    scores = fitted()
    far = scores.mean + scores.std * torch.tensor([1.0, 10, 100, 1000])[:, None]
    columns = scores.score(far)
    for name in COLUMNS - {"cohort", "cohort_size"}:
        assert columns[name].isfinite().all() and (columns[name].diff() > 0).all(), name


def test_half_the_memory_costs_little():
    full, half = fitted(300, 40), fitted(300, 40, half_trajectory=True)
    queries = vectors_of(50, 40, 1)
    for name in ("gaussian", "displacement", "knn", "plain"):
        expected, actual = full.score(queries)[name], half.score(queries)[name]
        assert ((actual - expected) / expected).abs().mean() < 1e-3, name


def test_refusals(caplog):
    scores = fitted()
    with pytest.raises(
        ScreenerError, match=r"must be \(images, 6\), but are \(4, 5\): use the net"
    ):
        scores.score(vectors_of(4, 5))
    with pytest.raises(ScreenerError, match=r"must be \(images, 5\), but are \(200, 6\)"):
        VectorScores(5).fit(vectors_of(200, 6))
    wrong = vectors_of(20, 6)
    wrong[3, 2], wrong[7, 0] = torch.nan, torch.inf
    names = [f"image {i}" for i in range(20)]
    for use in (scores.fit, lambda vectors, names: scores.score(vectors, names=names)):
        with pytest.raises(ScreenerError, match="vectors of image 3, image 7 hold values"):
            use(wrong, names)
    with pytest.raises(ScreenerError, match="there is no mode 'joint'; known: reference, cohort"):
        scores.score(vectors_of(4, 6), "joint")
    with pytest.raises(ScreenerError, match="9 training vectors are too few, 10 are the least"):
        VectorScores(6).fit(vectors_of(9, 6))
    with pytest.raises(RuntimeError, match="fit training vectors first"):
        VectorScores(6).score(vectors_of(9, 6))
    with pytest.raises(ValueError, match="1 names of 9 vectors"):
        scores.score(vectors_of(9, 6), names=["a"])
    assert not caplog.records
    VectorScores(6).fit(vectors_of(99, 6))
    assert "99 rows are few" in caplog.text


@pytest.mark.parametrize("half", [True, False])
def test_state_is_tensors_and_comes_back(tmp_path, half):
    names = [f"train {i}" for i in range(150)]
    scores = fitted(150, 6, names, half_trajectory=half)
    torch.save(scores.state_dict(), tmp_path / "state.pth")
    other = VectorScores(6, scores.settings)
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    for mode in (REFERENCE, COHORT):
        expected, actual = (s.score(vectors_of(30, 6, 1), mode) for s in (scores, other))
        assert all(torch.equal(actual[name], expected[name]) for name in COLUMNS)
    with pytest.raises(ScreenerError, match=r"must be \(images, 6\)"):
        other.score(vectors_of(4, 7))


def test_figures_measured_on_digits():
    data = _study["datasets"]()[0]
    splits = [_study["Split"].draw(data, seed) for seed in (0, 1)]
    one = [_study["reference_figures"](split) for split in splits]
    assert np.mean([f["plain"] for f in one]) == pytest.approx(0.77, abs=0.05)
    assert np.mean([f["displacement"] for f in one]) == pytest.approx(0.87, abs=0.05)
    many, _, _ = _study["cohort_figures"](splits[0], 0.38, 1)
    assert many == pytest.approx(0.98, abs=0.05)
    rare = [_study["cohort_figures"](split, 0.005, 3) for split in splits]
    cohort, plain, _ = np.mean(rare, axis=0)
    assert cohort < plain - 0.1
