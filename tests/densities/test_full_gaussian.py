"""FullGaussianDensity against SciPy and loops over bins in NumPy."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial import distance

from screener_nnu.densities import full_gaussian
from screener_nnu.densities.full_gaussian import FullGaussianDensity
from screener_nnu.densities.gaussian_pca import GaussianPcaDensity
from screener_nnu.errors import ScreenerError

torch.set_num_threads(1)

KINDS = [(c, r) for c in ("full", "shared", "diagonal") for r in ("absolute", "relative")]


def sample(count, d=4, seed=0):
    """Correlated descriptors, whose mean depends on the position, and positions."""
    random = np.random.default_rng(seed)
    positions = random.normal(size=(count, 3))
    mixing = np.random.default_rng(99).normal(size=(d, d))
    rows = random.normal(size=(count, d)) @ mixing + 2 + positions @ np.ones((3, d))
    return torch.tensor(rows).float(), torch.tensor(positions).float()


def fitted(rows, positions=None, **settings):
    density = FullGaussianDensity(rows.shape[1], 0 if positions is None else 3, **settings)
    density.fit(rows, positions, torch.Generator())
    return density.eval()


def as_map(rows):
    return None if rows is None else rows.T[None, :, :, None, None]


def scores(density, rows, positions=None):
    return density.log_prob(as_map(rows), as_map(positions)).flatten().numpy()


def bin_of(position, low, high, bins):
    places = []
    for x, a, b, count in zip(position, low, high, bins, strict=True):
        places.append(min(max(int(np.floor((x - a) / ((b - a) / count))), 0), count - 1))
    return tuple(places)


def gaussians_by_hand(rows, positions, bins, covariance, ridge, ridge_kind):
    """Mean and covariance by bin, the pooled one under `None`, and the range of the positions."""
    y, c = rows.double().numpy(), positions.double().numpy()
    d, low, high = y.shape[1], c.min(0), c.max(0)
    members = {}
    for vector, position in zip(y, c, strict=True):
        members.setdefault(bin_of(position, low, high, bins), []).append(vector)
    pooled = np.cov(y.T)
    added = ridge * (1 if ridge_kind == "absolute" else np.trace(pooled) / d) * np.eye(d)
    within = sum((len(m) - 1) * np.cov(np.array(m).T) for m in members.values() if len(m) > 1)
    out = {None: (y.mean(0), pooled)}
    for place, vectors in members.items():
        n = len(vectors)
        own = np.cov(np.array(vectors).T) if n > 1 else np.zeros((d, d))
        weight = min(1, (n - 1) / (2 * d - 1))
        matrix = weight * own + (1 - weight) * pooled
        if covariance == "shared":
            matrix = within / (len(y) - len(members))
        out[place] = np.mean(vectors, axis=0), matrix
    for place, (mean, matrix) in out.items():
        if covariance == "diagonal":
            matrix = np.diag(np.diag(matrix))
        out[place] = mean, matrix + added
    return out, low, high


@pytest.mark.parametrize("ridge", [0.01, 0.5])
@pytest.mark.parametrize("ridge_kind", ["absolute", "relative"])
@pytest.mark.parametrize("covariance", ["full", "shared", "diagonal"])
def test_one_gaussian_equals_scipy(covariance, ridge_kind, ridge):
    rows, _ = sample(300)
    queries, _ = sample(50, seed=1)
    density = fitted(rows, covariance=covariance, ridge_kind=ridge_kind, ridge=ridge)
    matrix = np.cov(rows.double().numpy().T)
    unit = np.trace(matrix) / 4 if ridge_kind == "relative" else 1
    if covariance == "diagonal":
        matrix = np.diag(np.diag(matrix))
    normal = stats.multivariate_normal(
        rows.double().numpy().mean(0), matrix + ridge * unit * np.eye(4)
    )
    expected = normal.logpdf(queries.double().numpy())
    np.testing.assert_allclose(scores(density, queries), expected, rtol=1e-5)


@pytest.mark.parametrize("covariance,ridge_kind", KINDS)
@pytest.mark.parametrize("batch", [1, 1 << 22])
def test_every_bin_equals_loops(covariance, ridge_kind, batch, monkeypatch):
    monkeypatch.setattr(full_gaussian, "_BATCH_NUMBERS", batch)
    bins, ridge = (2, 3, 5), 0.02
    rows, positions = sample(400)
    settings = {"covariance": covariance, "ridge_kind": ridge_kind, "ridge": ridge}
    density = fitted(rows, positions, bins=bins, **settings)
    known, low, high = gaussians_by_hand(rows, positions, bins, **settings)
    # Beyond the range, too, and in bins without rows.
    queries, places = sample(500, seed=1)
    places = 1.5 * places
    expected, used = [], set()
    for vector, position in zip(queries.double().numpy(), places.double().numpy(), strict=True):
        place = bin_of(position, low, high, bins)
        place = place if place in known else None
        used.add(place)
        expected.append(stats.multivariate_normal(*known[place]).logpdf(vector))
    assert None in used and len(used) > 15 and 1 < len(known) <= 2 * 3 * 5
    np.testing.assert_allclose(scores(density, queries, places), expected, rtol=1e-5, atol=1e-5)


def test_mahalanobis_equals_scipy():
    rows, positions = sample(300)
    density = fitted(rows, positions, bins=(1, 1, 2))
    known, low, high = gaussians_by_hand(rows, positions, (1, 1, 2), "full", 0.01, "absolute")
    queries, places = sample(24, seed=1)
    expected = []
    for vector, position in zip(queries.double().numpy(), places.double().numpy(), strict=True):
        mean, matrix = known[bin_of(position, low, high, (1, 1, 2))]
        expected.append(distance.mahalanobis(vector, mean, np.linalg.inv(matrix)))
    shape = (2, 1, 3, 4)
    actual = density.mahalanobis(
        *(x.view(*shape, -1).movedim(-1, 1).contiguous() for x in (queries, places))
    )
    assert actual.shape == shape
    np.testing.assert_allclose(actual.numpy().ravel(), expected, rtol=1e-5)


@pytest.mark.parametrize("count,weight", [(1, 0), (2, 1 / 7), (7, 6 / 7), (8, 1), (60, 1)])
def test_bin_of_few_rows_leans_on_the_pooled_covariance(count, weight):
    rows, positions = sample(200)
    positions[:, 0] = torch.where(torch.arange(200) < count, 1.0, 0.0)
    rows[:count] += 7
    density = fitted(rows, positions, bins=(2, 1, 1), ridge=0.1)
    y = rows.double().numpy()
    own = np.cov(y[:count].T) if count > 1 else np.zeros((4, 4))
    matrix = weight * own + (1 - weight) * np.cov(y.T) + 0.1 * np.eye(4)
    expected = stats.multivariate_normal(y[:count].mean(0), matrix).logpdf(y[:60])
    actual = scores(density, rows[:60], torch.ones(60, 3) * positions[:1])
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_bin_without_rows_is_the_pooled_gaussian():
    rows, positions = sample(200)
    positions[:, 0] = (positions[:, 0] > 0).float()
    density = fitted(rows, positions, bins=(3, 1, 1))
    between = torch.full((200, 3), 0.5)
    alone = fitted(rows)
    np.testing.assert_allclose(scores(density, rows, between), scores(alone, rows), rtol=1e-6)
    assert abs(scores(density, rows, positions) - scores(alone, rows)).max() > 0.5


def test_position_tells_nothing_where_all_bins_are_alike():
    rows, _ = sample(40_000)
    _, positions = sample(40_000, seed=5)
    gap = scores(fitted(rows, positions, bins=(2, 2, 2)), rows, positions) - scores(
        fitted(rows), rows
    )
    assert abs(gap).mean() < 0.05
    # And it does where they are not.
    moved = rows + 3 * positions[:, :1]
    gain = scores(fitted(moved, positions, bins=(2, 2, 2)), moved, positions).mean()
    assert gain > scores(fitted(moved), moved).mean() + 0.3


@pytest.mark.parametrize("covariance", ["full", "shared", "diagonal"])
def test_order_of_rows_does_not_count(covariance):
    rows, positions = sample(200)
    order = torch.from_numpy(np.random.default_rng(4).permutation(200))
    first = fitted(rows, positions, bins=(2, 2, 2), covariance=covariance)
    second = fitted(rows[order], positions[order], bins=(2, 2, 2), covariance=covariance)
    np.testing.assert_allclose(
        scores(first, rows, positions), scores(second, rows, positions), rtol=1e-5
    )
    np.testing.assert_allclose(
        scores(first, rows[order], positions[order]),
        scores(first, rows, positions)[order.numpy()],
        rtol=1e-5,
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_axis_along_which_positions_are_the_same_is_one_bin(axis):
    rows, positions = sample(300)
    positions[:, axis] = 0.3
    bins = [2, 2, 2]
    expected = fitted(rows, positions, bins=[1 if i == axis else 2 for i in range(3)])
    density = fitted(rows, positions, bins=bins)
    for step in (-5, 0, 5):
        moved = positions + step * torch.eye(3)[axis]
        np.testing.assert_allclose(
            scores(density, rows, moved), scores(expected, rows, positions), rtol=1e-6
        )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38, -1e38])
def test_position_that_is_no_number_breaks_nothing(value, axis):
    rows, positions = sample(100)
    density = fitted(rows, positions, bins=(3, 5, 7))
    positions[:, axis] = value
    assert np.isfinite(scores(density, rows, positions)).all()
    assert np.isnan(scores(density, rows * float("nan"), positions)).all()


def test_fewer_rows_than_channels_and_a_constant_column():
    rows, _ = sample(5, d=9)
    rows[:, 3] = 2.0
    density = fitted(rows, ridge=0.3)
    normal = stats.multivariate_normal(
        rows.double().numpy().mean(0), np.cov(rows.double().numpy().T) + 0.3 * np.eye(9)
    )
    queries, _ = sample(20, d=9, seed=1)
    expected = normal.logpdf(queries.double().numpy())
    np.testing.assert_allclose(scores(density, queries), expected, rtol=1e-5)


def test_large_means_do_not_cancel():
    rows, _ = sample(500)
    rows = (rows * 64).round() / 64  # so that float32 holds the moved rows exactly
    moved = rows + 2.0**16
    np.testing.assert_allclose(
        scores(fitted(moved), moved), scores(fitted(rows), rows), rtol=0, atol=0.05
    )
    np.testing.assert_allclose(fitted(moved).whitening, fitted(rows).whitening, rtol=1e-5)


@pytest.mark.parametrize("covariance", ["full", "shared", "diagonal"])
def test_scores_of_far_rows_are_finite_and_fall(covariance):
    rows, positions = sample(300)
    density = fitted(rows, positions, covariance=covariance)
    far = torch.stack([rows[0] + step * rows.std(0) for step in (0, 10, 100, 1000)])
    values = scores(density, far, positions[:1].expand(4, 3))
    assert np.isfinite(values).all() and (np.diff(values) < 0).all()
    distances = density.mahalanobis(as_map(far), as_map(positions[:1].expand(4, 3))).flatten()
    assert distances.isfinite().all() and (distances.diff() > 0).all()


def test_shared_covariance_is_held_once():
    rows, positions = sample(300)
    sizes = {
        kind: tuple(fitted(rows, positions, covariance=kind).whitening.shape)
        for kind in ("full", "shared", "diagonal")
    }
    filled = sizes["full"][0]
    assert sizes == {"full": (filled, 4, 4), "shared": (2, 4, 4), "diagonal": (filled, 4)}
    assert 20 < filled < 65
    assert fitted(rows).whitening.shape == (1, 4, 4)


@pytest.mark.parametrize("covariance", ["full", "shared", "diagonal"])
def test_state_travels_with_its_bins(covariance):
    rows, positions = sample(300)
    density = fitted(rows, positions, covariance=covariance)
    other = FullGaussianDensity(4, 3, covariance=covariance)
    other.load_state_dict(density.state_dict())
    assert np.array_equal(scores(other, rows, positions), scores(density, rows, positions))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_same_rows(covariance):
    rows = torch.ones(20, 4)
    expected = stats.multivariate_normal(np.ones(4), 0.01 * np.eye(4)).logpdf(np.full(4, 1.2))
    actual = scores(fitted(rows, covariance=covariance), 1.2 * rows)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    with pytest.raises(ScreenerError, match="ridge_kind=absolute"):
        fitted(rows, covariance=covariance, ridge_kind="relative")
    with pytest.raises(ScreenerError, match="singular.*density.options.ridge"):
        fitted(rows, covariance=covariance, ridge=1e-300)


def test_refuses_a_singular_covariance():
    rows, _ = sample(3)
    with pytest.raises(ScreenerError, match="singular.*density.options.ridge"):
        fitted(rows, ridge=1e-18)


@pytest.mark.parametrize("cond_dim", [1, 2, 24])
def test_refuses_a_condition_that_is_no_position(cond_dim):
    with pytest.raises(ScreenerError, match=f"{cond_dim} channels.*condition.kind=none"):
        FullGaussianDensity(4, cond_dim)


def test_refuses_to_share_what_no_bin_has():
    rows, positions = sample(3)
    positions = torch.arange(3.0)[:, None].expand(3, 3)
    with pytest.raises(ScreenerError, match="no bin has two rows.*density.options.bins"):
        fitted(rows, positions, covariance="shared")
    assert fitted(rows, positions, covariance="full").means.shape == (64, 4)


@pytest.mark.parametrize(
    "settings, pictures, words",
    [
        ({"bins": (1, 0, 0)}, 7, "they lean on the covariance of all rows"),
        ({"bins": (1, 0, 0), "leaning": False}, 7, "the ridge decides"),
        ({"bins": (1, 0, 0)}, 8, ""),
        ({"bins": (1, 0, 0), "covariance": "shared"}, 3, ""),
        ({"bins": (1, 0, 0), "covariance": "diagonal"}, 3, ""),
        ({"bins": (1, 2, 2)}, 3, ""),
    ],
)
def test_warns_of_fewer_than_two_rows_a_channel(settings, pictures, words, caplog):
    """Of d = 4 channels: below 8 pictures, where a place has one row of each."""
    fitted(*grid_rows(pictures), **settings)
    found = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(found) == bool(words)
    if words:
        assert f"fewer than 8 rows, two a channel ({pictures} at most;" in found[0]
        assert words in found[0] and "density.options.covariance" in found[0]


def test_warns_of_one_gaussian_of_few_rows(caplog):
    fitted(sample(7)[0])
    assert "(7 at most" in caplog.text and "the ridge decides" in caplog.text


def test_in_the_space_of_all_components_it_is_the_same_but_for_the_ridge():
    """Detectors `gaussian` and `pca` on a descriptor of few channels."""
    rows, _ = sample(300)
    queries, _ = sample(50, seed=1)
    for ridge in (1e-4, 0.01):
        pca = GaussianPcaDensity(4, ridge=ridge)
        pca.fit(rows, None, torch.Generator())
        found = scores(pca, queries)
        np.testing.assert_allclose(found, scores(fitted(rows, ridge=ridge), queries), rtol=1e-4)
    assert abs(found - scores(fitted(rows, ridge=1e-4), queries)).max() > 0.01


def test_tells_how_many_bins_are_thin(caplog):
    rows, positions = sample(200)
    positions[:, 0] = torch.where(torch.arange(200) < 3, 1.0, 0.0)
    with caplog.at_level("INFO", full_gaussian.__name__):
        fitted(rows, positions, bins=(4, 1, 1))
    assert "4 bins: 1 have fewer than 8 rows, and 2 have none" in caplog.text


def grid_rows(pictures=30, rows=5, columns=7, d=4, seed=0):
    """Descriptors of pictures that are framed alike, each place with a Gaussian of its own."""
    random = np.random.default_rng(seed)
    means = np.random.default_rng(8).normal(size=(rows, columns, d)) * 3
    mixing = np.random.default_rng(9).normal(size=(rows, columns, d, d))
    y = means + np.einsum(
        "prcd,rcde->prce", random.normal(size=(pictures, rows, columns, d)), mixing
    )
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    place = np.stack([0 * row, (row + 0.5) / rows, (column + 0.5) / columns], axis=-1)
    c = np.broadcast_to(place, (pictures, rows, columns, 3))
    return tuple(torch.tensor(x.reshape(-1, x.shape[-1])).float() for x in (y, c))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize("pictures", [30, 3])
def test_a_bin_for_each_place_is_padim(covariance, pictures):
    """Mean and covariance of each pixel over the pictures, as Defard et al. have them."""
    rows, places = grid_rows(pictures)
    settings = {"bins": (1, 0, 0), "ridge": 0.01, "covariance": covariance, "leaning": False}
    density = fitted(rows, places, **settings)
    assert density.bin_counts.tolist() == [1, 5, 7]
    queries, places = grid_rows(4, seed=1)
    found = scores(density, queries, places).reshape(4, 35)
    by_place = rows.double().numpy().reshape(pictures, 35, 4)
    for place in range(35):
        vectors = by_place[:, place]
        matrix = np.cov(vectors.T)
        if covariance == "diagonal":
            matrix = np.diag(np.diag(matrix))
        normal = stats.multivariate_normal(vectors.mean(0), matrix + 0.01 * np.eye(4))
        expected = normal.logpdf(queries.double().numpy().reshape(4, 35, 4)[:, place])
        np.testing.assert_allclose(found[:, place], expected, rtol=2e-4, atol=1e-3)


def test_places_are_found_in_any_order_and_in_parts_of_pictures():
    rows, places = grid_rows()
    order = torch.from_numpy(np.random.default_rng(4).permutation(len(rows)))[:700]
    density = fitted(rows[order], places[order], bins=(1, 0, 0))
    assert density.bin_counts.tolist() == [1, 5, 7]
    whole = fitted(rows[order], places[order], bins=(1, 5, 7))
    assert np.array_equal(scores(density, rows, places), scores(whole, rows, places))


@pytest.mark.parametrize("count,weight", [(1, 0), (2, 1), (7, 1)])
def test_without_leaning_two_rows_are_enough(count, weight):
    rows, positions = sample(200)
    positions[:, 0] = torch.where(torch.arange(200) < count, 1.0, 0.0)
    density = fitted(rows, positions, bins=(2, 1, 1), ridge=0.1, leaning=False)
    y = rows.double().numpy()
    own = np.cov(y[:count].T) if count > 1 else np.zeros((4, 4))
    matrix = weight * own + (1 - weight) * np.cov(y.T) + 0.1 * np.eye(4)
    expected = stats.multivariate_normal(y[:count].mean(0), matrix).logpdf(y[:60])
    actual = scores(density, rows[:60], torch.ones(60, 3) * positions[:1])
    np.testing.assert_allclose(actual, expected, rtol=2e-4)


@pytest.mark.parametrize("cond_dim", [0, 3])
def test_states_are_those_of_earlier_versions_where_bins_are_given(cond_dim):
    rows, positions = sample(300)
    state = fitted(rows, positions if cond_dim else None).state_dict()
    assert set(state) == {
        "initialised", "lowest", "highest", "means", "covariance_of_bin", "whitening", "log_peak",
    }  # fmt: skip
    other = FullGaussianDensity(4, 3, bins=(1, 0, 0))
    assert set(other.state_dict()) == {*state, "bin_counts"}


def test_state_travels_with_the_places_that_were_found():
    rows, places = grid_rows()
    density = fitted(rows, places, bins=(1, 0, 0))
    other = FullGaussianDensity(4, 3, bins=(1, 0, 0))
    other.load_state_dict(density.state_dict())
    assert np.array_equal(scores(other, rows, places), scores(density, rows, places))
