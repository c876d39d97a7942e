"""Places of synthetic anomalies: position alone does not find them."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from screener_nnu.errors import ScreenerError
from screener_nnu.synthetic import BlobSettings, Phantom, generate_phantom, place_blobs
from screener_nnu.synthetic.anomaly_positions import PositionScores, position_bins, positions
from screener_nnu.synthetic.placement import BodyPlaces, blob_mask


@pytest.fixture(scope="module")
def scans() -> tuple[Phantom, Phantom]:
    return generate_phantom(11), generate_phantom(12, spacing=(5.0, 3.5, 3.5))


def test_edges_are_soft(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    placement = place_blobs(scan.body, scan.spacing, np.random.default_rng(6))
    for blob in placement.blobs:
        assert ((blob.weight > 0) & (blob.weight < 1)).any()
        assert blob.weight.min() >= 0 and blob.weight.max() <= 1


def test_blobs_follow_the_settings(scans: tuple[Phantom, Phantom]) -> None:
    settings = BlobSettings(mean_count=0.01, radius=(10.0, 11.0))
    placement = place_blobs(scans[0].body, scans[0].spacing, np.random.default_rng(0), settings)
    assert len(placement.blobs) == 1 and 10 <= placement.blobs[0].radius <= 11
    counts = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        counts.append(len(place_blobs(scans[1].body, scans[1].spacing, rng).blobs))
    assert 3 < np.mean(counts) < 7 and min(counts) >= 1


def test_blobs_fill_the_share_of_the_body_that_was_asked_for() -> None:
    """A large and a small ball; the radii stay in their range."""
    for radius in (44.0, 100.0):
        step = np.arange(-110, 111, 4.0)
        z, y, x = np.meshgrid(step, step, step, indexing="ij")
        body = z**2 + y**2 + x**2 <= radius**2
        places = BodyPlaces(body, (4.0, 4.0, 4.0))
        for seed in range(4):
            placement = places.place(np.random.default_rng(seed), BlobSettings(radius=(4, 30)))
            share = blob_mask(body.shape, placement.blobs)[body].mean()
            assert 0.0075 / 1.6 < share < 0.0075 * 1.6
            assert all(4 <= blob.radius <= 30 for blob in placement.blobs)


def test_blobs_do_not_overlap_and_stay_in_the_body(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    settings = BlobSettings(mean_count=12, body_share=0.05)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        count = np.zeros(scan.body.shape, int)
        for blob in place_blobs(scan.body, scan.spacing, rng, settings).blobs:
            count[blob.box] += blob.weight > 0
        assert count.max() == 1 and not count[~scan.body].any()


def test_only_accepted_blobs_are_taken(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    rng = np.random.default_rng(0)
    placement = place_blobs(scan.body, scan.spacing, rng, accept=lambda b: b.radius > 14)
    assert min(blob.radius for blob in placement.blobs) > 14
    with pytest.raises(ValueError, match="no place"):
        place_blobs(scan.body, scan.spacing, rng, accept=lambda b: False)


def test_position_alone_finds_nothing_in_bodies_of_any_size() -> None:
    """Bodies of 1.5 to 17 l; each set of places is drawn without knowing the others."""
    pooled, by_chance = PositionScores(), PositionScores()
    rng = np.random.default_rng(1)
    for scan_number in range(10):
        step = np.arange(-160, 161, 5.0)
        z, y, x = np.meshgrid(step, step, step, indexing="ij")
        size = 65 + 8 * scan_number
        body = (z / 1.2) ** 2 + y**2 + (x * 1.3) ** 2 <= size**2
        places = BodyPlaces(body, (5.0, 5.0, 5.0))
        placement = places.place(np.random.default_rng([7, scan_number]))
        assert max(placement.auroc.values()) < 0.57
        pooled = pooled + placement.scores
        # As many anomalies in a small body as in a large one: near the centre of the pool.
        inside = np.flatnonzero(body)
        chosen = np.zeros(body.size, bool)
        chosen[rng.permutation(inside)[:500]] = True
        scores = PositionScores.of_scan(places.bins, chosen[inside])
        by_chance = by_chance + scores
    assert max(pooled.auroc().values()) < 0.55 < max(by_chance.auroc().values())


@pytest.mark.parametrize(
    "wrong",
    [{"radius": (9.0, 3.0)}, {"edge": 0.0}, {"body_share": 0.5}, {"contrast": (-5.0, 5.0)}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ScreenerError, match=next(iter(wrong))):
        BlobSettings(**wrong)


def test_positional_auroc_is_that_of_scikit_learn(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    placement = place_blobs(scan.body, scan.spacing, np.random.default_rng(8))
    truth = blob_mask(scan.body.shape, placement.blobs)[scan.body]
    for name, values in positions(scan.body, scan.spacing).items():
        expected = roc_auc_score(truth, values)
        assert placement.auroc[f"{name}_far"] == pytest.approx(expected, abs=2e-3)
        assert placement.auroc[f"{name}_near"] == pytest.approx(1 - expected, abs=2e-3)


def test_positions_against_explicit_distances() -> None:
    body = np.zeros((7, 9, 11), bool)
    body[1:6, 2:8, 1:6] = True
    spacing = (2.0, 1.0, 3.0)
    measured = positions(body, spacing)
    places = np.argwhere(body) * spacing
    volume = np.linalg.norm(places - np.array([3, 4, 5]) * spacing, axis=1)
    box = np.linalg.norm(places - np.array([3, 4.5, 3]) * spacing, axis=1)
    outside = np.argwhere(~body) * spacing
    depth = np.linalg.norm(places[:, None] - outside[None], axis=2).min(axis=1)
    np.testing.assert_allclose(measured["volume_centre"], volume, rtol=1e-5)
    np.testing.assert_allclose(measured["body_centre"], box, rtol=1e-5)
    np.testing.assert_allclose(measured["skin_depth"], depth, rtol=1e-5)


def test_pooled_scores_are_those_of_all_voxels(scans: tuple[Phantom, Phantom]) -> None:
    pooled, values, truth = PositionScores(), [], []
    for scan in scans:
        placement = place_blobs(scan.body, scan.spacing, np.random.default_rng(9))
        anomaly = blob_mask(scan.body.shape, placement.blobs)[scan.body]
        bins = position_bins(scan.body, scan.spacing)
        pooled = pooled + PositionScores.of_scan(bins, anomaly)
        values.append(bins["skin_depth"])
        truth.append(anomaly)
    expected = roc_auc_score(np.concatenate(truth), np.concatenate(values))
    assert pooled.auroc()["skin_depth_far"] == pytest.approx(expected, abs=1e-9)
