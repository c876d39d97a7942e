"""GaussianPcaDensity against scikit-learn and SciPy."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage
from sklearn.decomposition import PCA

from screener_nnu.densities.gaussian_pca import GaussianPcaDensity
from screener_nnu.errors import ScreenerError

torch.set_num_threads(1)


def sample(count, d=6, seed=0):
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) * np.linspace(2, 0.1, d)
    return torch.tensor(random.normal(size=(count, d)) @ mixing + 3).float()


def fitted(rows, **settings):
    density = GaussianPcaDensity(rows.shape[1], **settings)
    density.fit(rows, None, torch.Generator())
    return density.eval()


def scores(density, rows):
    return density.log_prob(rows.T[None, :, :, None, None]).flatten().numpy()


def regularised(projected, ridge_kind, ridge):
    """Covariance over n - 1 of projected rows, by scikit-learn's estimates."""
    count, width = projected.shape
    covariance = np.cov(projected.T).reshape(width, width)
    if ridge_kind == "ledoit_wolf":
        return LedoitWolf().fit(projected).covariance_ * count / (count - 1)
    level = 1 if ridge_kind == "absolute" else np.trace(covariance) / width
    return covariance + ridge * level * np.eye(width)


@pytest.mark.parametrize("ridge_kind", ["absolute", "relative", "ledoit_wolf"])
@pytest.mark.parametrize(
    "count,d,components", [(200, 6, 256), (200, 6, 2), (5, 9, 256), (30, 9, 8)]
)
def test_equals_scikit_learn_and_scipy(count, d, components, ridge_kind):
    rows, queries = sample(count, d), sample(40, d, seed=1)
    density = fitted(rows, components=components, ridge_kind=ridge_kind, ridge=0.03)
    width = min(components, d, count - 1)
    pca = PCA(width, svd_solver="full").fit(rows.double().numpy())
    assert density.components.shape == (width, d)
    np.testing.assert_allclose(density.components, pca.components_, atol=1e-6)
    projected = pca.transform(rows.double().numpy())
    normal = stats.multivariate_normal(projected.mean(0), regularised(projected, ridge_kind, 0.03))
    expected = normal.logpdf(pca.transform(queries.double().numpy()))
    np.testing.assert_allclose(scores(density, queries), expected, rtol=2e-5)


@pytest.mark.parametrize("count,d", [(2, 3), (7, 3), (40, 12), (3000, 5)])
def test_shrinkage_equals_scikit_learn(count, d):
    rows = sample(count, d)
    density = fitted(rows, ridge_kind="ledoit_wolf")
    plain = fitted(rows, ridge=1e-12)
    width = len(plain.variances)
    projected = PCA(width, svd_solver="full").fit_transform(rows.double().numpy())
    rho = ledoit_wolf_shrinkage(projected)
    expected = (1 - rho) * plain.variances + rho * plain.variances.mean()
    np.testing.assert_allclose(density.variances, expected, rtol=1e-5)


def test_all_components_equal_the_gaussian_of_the_rows():
    rows, queries = sample(300), sample(40, seed=1)
    matrix = np.cov(rows.double().numpy().T) + 0.01 * np.eye(6)
    normal = stats.multivariate_normal(rows.double().numpy().mean(0), matrix)
    expected = normal.logpdf(queries.double().numpy())
    np.testing.assert_allclose(scores(fitted(rows, ridge=0.01), queries), expected, rtol=1e-5)


def test_what_lies_outside_the_span_does_not_count():
    rows = sample(300)
    density = fitted(rows, components=3)
    outside = PCA(6, svd_solver="full").fit(rows.double().numpy()).components_[4]
    moved = rows + 5 * torch.tensor(outside).float()
    np.testing.assert_allclose(scores(density, moved), scores(density, rows), atol=1e-3)
    everything = fitted(rows)
    assert (scores(everything, moved) < scores(everything, rows) - 10).all()


def test_signs_do_not_depend_on_the_rows():
    rows = sample(300)
    components = fitted(rows).components
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    assert (largest > 0).all()
    mirrored = fitted(-rows).components
    torch.testing.assert_close(mirrored, components)


@pytest.mark.parametrize("ridge_kind", ["absolute", "relative", "ledoit_wolf"])
@pytest.mark.parametrize("count,copies", [(100, 1), (5, 1), (4, 3)])
def test_order_of_rows_does_not_count(count, copies, ridge_kind):
    rows = sample(count, 20).repeat(copies, 1)
    order = torch.from_numpy(np.random.default_rng(4).permutation(len(rows)))
    queries = sample(30, 20, seed=1)
    first, second = (fitted(r, ridge_kind=ridge_kind) for r in (rows, rows[order]))
    np.testing.assert_allclose(scores(first, queries), scores(second, queries), rtol=1e-4)


def test_copies_of_rows_add_no_component():
    rows = sample(4, 20)
    assert len(fitted(rows.repeat(3, 1)).variances) == len(fitted(rows).variances) == 3


def test_constant_column_counts_where_all_components_are_kept():
    rows = sample(200)
    rows[:, 2] = 1.0
    density = fitted(rows, ridge=0.01)
    expected = stats.multivariate_normal(
        rows.double().numpy().mean(0), np.cov(rows.double().numpy().T) + 0.01 * np.eye(6)
    ).logpdf(rows.double().numpy())
    np.testing.assert_allclose(scores(density, rows), expected, rtol=1e-4)
    moved = rows + torch.eye(6)[2]
    gap = scores(density, rows) - scores(density, moved)
    np.testing.assert_allclose(gap, 0.5 / 0.01, rtol=1e-3)


def test_large_means_do_not_cancel():
    rows = (sample(500) * 64).round() / 64  # so that float32 holds the moved rows exactly
    moved = rows + 2.0**16
    np.testing.assert_allclose(fitted(moved).variances, fitted(rows).variances, rtol=1e-5)
    np.testing.assert_allclose(fitted(moved).components, fitted(rows).components, atol=1e-5)


@pytest.mark.parametrize("ridge_kind", ["absolute", "relative", "ledoit_wolf"])
def test_scores_of_far_rows_are_finite_and_fall(ridge_kind):
    rows = sample(300)
    density = fitted(rows, ridge_kind=ridge_kind)
    far = torch.stack([rows[0] + step * rows.std(0) for step in (0, 10, 100, 1000)])
    values = scores(density, far)
    assert np.isfinite(values).all() and (np.diff(values) < 0).all()


def test_same_rows():
    rows = torch.ones(20, 3)
    expected = stats.multivariate_normal(np.ones(1), 0.01).logpdf(1.2)
    along = fitted(rows, components=1, ridge=0.01).components[0]
    actual = scores(fitted(rows, components=1, ridge=0.01), rows + 0.2 * along)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    for settings in ({"ridge_kind": "relative"}, {"ridge_kind": "ledoit_wolf"}, {"ridge": 1e-40}):
        with pytest.raises(ScreenerError, match="without variance.*ridge_kind=absolute"):
            fitted(rows, **settings)


def test_refuses_a_condition():
    with pytest.raises(ScreenerError, match="no condition.*condition.kind=none"):
        GaussianPcaDensity(4, 3)
