"""Findings beside scikit-image's labelling and sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from skimage.measure import label

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.findings import Findings, find_findings

THRESHOLD = 11.0
VOXEL_ML = 0.8 * 1.1 * 2.5 / 1000
MINIMUM_ML = 0.02


def find(scan, threshold: float = THRESHOLD, **options) -> Findings:
    options = {"minimum_ml": MINIMUM_ML, **options}
    return find_findings("scan", scan.score, scan.body, threshold, **options)


def expected_places(scan) -> list[np.ndarray]:
    """Voxels (z, y, x) of every place above the threshold, the highest peak first."""
    labels = label((scan.values > THRESHOLD) & scan.body_mask, connectivity=3)
    places = [np.argwhere(labels == number) for number in range(1, labels.max() + 1)]
    return sorted(places, key=lambda place: -scan.values[tuple(place.T)].max())


def test_the_example_has_everything(scan) -> None:
    places = expected_places(scan)
    sizes = np.array([len(place) for place in places]) * VOXEL_ML
    assert (sizes >= MINIMUM_ML).sum() > 5
    assert (sizes < MINIMUM_ML).sum() > 5
    outside = label(scan.values > THRESHOLD, connectivity=3).max()
    assert outside != len(places), "the body mask must matter"
    faces = label((scan.values > THRESHOLD) & scan.body_mask, connectivity=1).max()
    assert faces != len(places), "the connectivity must matter"


def test_each_row_beside_numpy(scan) -> None:
    findings = find(scan)
    places = [p for p in expected_places(scan) if len(p) * VOXEL_ML >= MINIMUM_ML]
    assert len(findings.rows) == len(places)
    for number, (row, place) in enumerate(zip(findings.rows, places, strict=True), start=1):
        scores = scan.values[tuple(place.T)]
        assert row.number == number
        assert row.voxels == len(place)
        assert row.volume_ml == pytest.approx(len(place) * VOXEL_ML)
        assert row.peak_score == scores.max()
        assert row.mean_score == pytest.approx(scores.astype(np.float64).mean(), rel=1e-6)
        assert row.percentile is None
        assert row.first_voxel == tuple(place.min(axis=0)[::-1])
        assert row.last_voxel == tuple(place.max(axis=0)[::-1])
        assert row.peak_voxel == tuple(place[scores.argmax()][::-1])


def test_points_lie_where_the_geometry_puts_them(scan) -> None:
    places = [p for p in expected_places(scan) if len(p) * VOXEL_ML >= MINIMUM_ML]
    for row, place in zip(find(scan).rows, places, strict=True):
        points = np.c_[place[:, ::-1], np.ones(len(place))] @ scan.affine.T
        centre = points.mean(axis=0)[:3]
        assert row.centre_mm == pytest.approx(centre)
        # Several voxels may be equally near, so distances are compared and not the voxels.
        assert row.centre_voxel[::-1] in {tuple(voxel) for voxel in place.tolist()}
        distance = np.linalg.norm((scan.affine @ [*row.centre_voxel, 1])[:3] - centre)
        nearest = np.linalg.norm(points[:, :3] - centre, axis=1).min()
        assert distance == pytest.approx(nearest, abs=1e-9)
        assert row.peak_mm == pytest.approx(
            scan.score.TransformIndexToPhysicalPoint(row.peak_voxel)
        )


def test_the_image_holds_the_numbers_in_the_same_geometry(scan) -> None:
    findings = find(scan)
    expected = np.zeros(scan.values.shape, dtype=np.uint8)
    places = [p for p in expected_places(scan) if len(p) * VOXEL_ML >= MINIMUM_ML]
    for number, place in enumerate(places, start=1):
        expected[tuple(place.T)] = number
    labels = sitk.GetArrayFromImage(findings.image)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(findings.image, name)() == getattr(scan.score, name)()


def test_what_is_left_out_is_counted(scan) -> None:
    sizes = np.array([len(place) * VOXEL_ML for place in expected_places(scan)])
    large = sizes[sizes >= MINIMUM_ML]
    findings = find(scan, limit=4)
    assert len(findings.rows) == 4
    assert findings.rows == find(scan).rows[:4]
    assert findings.beyond_limit.count == large.size - 4
    assert findings.beyond_limit.volume_ml == pytest.approx(large[4:].sum())
    assert findings.too_small.count == (sizes < MINIMUM_ML).sum()
    assert findings.too_small.volume_ml == pytest.approx(sizes[sizes < MINIMUM_ML].sum())
    assert sitk.GetArrayViewFromImage(findings.image).max() == 4


def test_no_finding(scan) -> None:
    findings = find(scan, threshold=1000.0)
    assert findings.rows == ()
    assert (findings.too_small.count, findings.beyond_limit.count) == (0, 0)
    assert not sitk.GetArrayViewFromImage(findings.image).any()
    assert findings.image.GetDirection() == scan.score.GetDirection()


def test_only_small_places(scan) -> None:
    findings = find(scan, minimum_ml=100.0)
    assert findings.rows == ()
    assert findings.too_small.count == len(expected_places(scan))
    assert not sitk.GetArrayViewFromImage(findings.image).any()


def volume(shape=(6, 7, 8)) -> np.ndarray:
    return np.zeros(shape, dtype=np.float32)


def images(values: np.ndarray) -> tuple[sitk.Image, sitk.Image]:
    """Voxels of 1 mm, everything is body."""
    return sitk.GetImageFromArray(values), sitk.GetImageFromArray(np.ones(values.shape, np.uint8))


def test_a_score_at_the_threshold_is_no_finding() -> None:
    values = volume()
    values[2, 3, 4] = 5.0
    values[4, 5, 6] = np.nextafter(np.float32(5), np.float32(6))
    findings = find_findings("scan", *images(values), 5.0, minimum_ml=0.0)
    assert [row.peak_voxel for row in findings.rows] == [(6, 5, 4)]


def test_a_place_of_just_the_smallest_volume_counts() -> None:
    values = volume()
    values[0, 0, :3] = 9.0
    for minimum, number in ((0.003, 1), (0.0031, 0)):
        findings = find_findings("scan", *images(values), 5.0, minimum_ml=minimum)
        assert len(findings.rows) == number


def test_a_full_list_leaves_nothing_out() -> None:
    values = volume()
    values[1, 1, 1] = 9.0
    findings = find_findings("scan", *images(values), 5.0, minimum_ml=0.0, limit=1)
    assert len(findings.rows) == 1
    assert (findings.beyond_limit.count, findings.too_small.count) == (0, 0)


def test_equal_peaks_come_by_volume_then_as_in_the_scan() -> None:
    values = volume()
    values[0, 0, :2] = 9.0
    values[2, 0, :3] = 9.0
    values[4, 0, :2] = 9.0
    rows = find_findings("scan", *images(values), 5.0, minimum_ml=0.0).rows
    assert [row.first_voxel[2] for row in rows] == [2, 0, 4]


def test_the_centre_voxel_of_a_ring_belongs_to_the_ring() -> None:
    values = volume((3, 5, 5))
    values[1, 1:4, 1:4] = 7.0
    values[1, 2, 2] = 0.0
    (row,) = find_findings("scan", *images(values), 5.0, minimum_ml=0.0).rows
    assert row.centre_mm == (2.0, 2.0, 1.0)
    assert values[row.centre_voxel[::-1]] == 7.0


def test_more_than_255_findings_need_16_bits() -> None:
    values = volume((40, 40, 4))
    values[::2, ::2, ::3] = np.arange(800, dtype=np.float32).reshape(20, 20, 2) + 1
    findings = find_findings("scan", *images(values), 0.5, minimum_ml=0.0, limit=1000)
    labels = sitk.GetArrayFromImage(findings.image)
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels[values > 0], 801 - values[values > 0])


def test_percentiles_are_those_of_the_peaks(scan) -> None:
    findings = find(scan, percentile=lambda score: score / 2)
    assert [row.percentile for row in findings.rows] == [
        row.peak_score / 2 for row in findings.rows
    ]


def test_a_mask_of_another_geometry_is_refused(scan) -> None:
    body = sitk.Image(scan.body)
    body.SetOrigin((0.0, 0.0, 0.0))
    with pytest.raises(CaseError, match="^scan: .*same voxels"):
        find_findings("scan", scan.score, body, THRESHOLD)


@pytest.mark.parametrize(
    "request_", [{"threshold": float("nan")}, {"minimum_ml": -1.0}, {"limit": 0}, {"limit": 70000}]
)
def test_requests_without_sense_are_refused(request_) -> None:
    options = {"threshold": 1.0, **request_}
    with pytest.raises(ScreenerError, match="give|ask"):
        find_findings("scan", *images(volume()), **options)
