"""Synthetic anomalies: what changes, where, and that position alone does not find it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from screener_nnu.synthetic import (
    BlobSettings,
    Phantom,
    Placement,
    add_anomalies,
    generate_phantom,
    place_blobs,
    synthesize_test_set,
    write_phantom_dataset,
)
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.anomaly_set import BodyFunction, case_name
from screener_nnu.synthetic.placement import PositionScores, blob_mask, position_bins, positions


def quick_body(image_hu: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Largest dense part, filled slice by slice."""
    dense = ndimage.binary_opening(image_hu >= -500, iterations=1)
    parts, _ = ndimage.label(dense)
    largest = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return np.stack([ndimage.binary_fill_holes(plane) for plane in largest])


@pytest.fixture(scope="module")
def scans() -> tuple[Phantom, Phantom]:
    return generate_phantom(11), generate_phantom(12, spacing=(5.0, 3.5, 3.5))


def paint(
    scans: tuple[Phantom, Phantom], kind: str, seed: int = 0, **changes: Any
) -> tuple[np.ndarray, np.ndarray]:
    scan, donor = scans
    arguments: dict[str, Any] = {
        "image_hu": scan.image_hu,
        "body": scan.body,
        "spacing": scan.spacing,
        "donor_hu": donor.image_hu,
        "donor_body": donor.body,
        "donor_spacing": donor.spacing,
        "kind": kind,
        "rng": np.random.default_rng(seed),
    }
    return add_anomalies(**(arguments | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_anomalies(scans: tuple[Phantom, Phantom], kind: str) -> None:
    first, second, other = (paint(scans, kind, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[1] != other[1]).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_only_blobs_inside_the_body_change(
    scans: tuple[Phantom, Phantom], kind: str, seed: int
) -> None:
    scan = scans[0]
    placement = place_blobs(scan.body, scan.spacing, np.random.default_rng(seed))
    image, mask = paint(scans, kind, seed, placement=placement)
    assert image.dtype == scan.image_hu.dtype and mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1} and not mask[~scan.body].any()
    changed = image != scan.image_hu
    support = np.zeros(mask.shape, bool)
    for blob in placement.blobs:
        support[blob.box] |= blob.weight > 0
    assert not changed[~support].any() and not changed[~scan.body].any()
    np.testing.assert_array_equal(mask > 0, blob_mask(mask.shape, placement.blobs))
    # A value may be hit by chance (foreign tissue), or be air already, but hardly ever.
    assert changed[mask > 0].mean() > (0.7 if kind == "deformation" else 0.9)


def test_input_is_left_alone(scans: tuple[Phantom, Phantom]) -> None:
    before = scans[0].image_hu.copy()
    paint(scans, "hyperdense")
    np.testing.assert_array_equal(before, scans[0].image_hu)


def cores(scan: Phantom, placement: Placement) -> Iterator[np.ndarray]:
    """Voxels where a blob alone decides, blob by blob."""
    for blob in placement.blobs:
        core = np.zeros(scan.body.shape, bool)
        core[blob.box] = blob.weight >= 1
        if core.sum() >= 5:
            yield core


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "sign"), [("hypodense", -1), ("hyperdense", 1)])
def test_contrast_is_within_its_range(
    scans: tuple[Phantom, Phantom], kind: str, sign: int, seed: int
) -> None:
    scan = scans[0]
    placement = place_blobs(scan.body, scan.spacing, np.random.default_rng(seed))
    image, _ = paint(scans, kind, seed, placement=placement)
    for core in cores(scan, placement):
        change = (image.astype(int) - scan.image_hu)[core]
        unclipped = image[core] > -1024
        assert 39 <= sign * np.median(change[unclipped]) <= 121
        assert np.ptp(change[unclipped]) <= 1


def test_constant_is_constant(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    placement = place_blobs(scan.body, scan.spacing, np.random.default_rng(4))
    image, _ = paint(scans, "constant", placement=placement)
    found = list(cores(scan, placement))
    assert found
    for core in found:
        assert np.ptp(image[core]) == 0


def test_pasted_tissue_comes_from_the_donor(scans: tuple[Phantom, Phantom]) -> None:
    """A donor in which every voxel says where it is: the paste is a shift of it, in mm."""
    scan, donor = scans
    z = np.arange(donor.body.shape[0]) * donor.spacing[0]
    ramp = np.broadcast_to((z - 500)[:, None, None], donor.body.shape).astype(np.float32)
    placement = place_blobs(scan.body, scan.spacing, np.random.default_rng(5))
    image, _ = paint(
        scans,
        "pasted",
        donor_hu=ramp,
        donor_body=np.ones(donor.body.shape, bool),
        donor_spacing=(donor.spacing[0], 50.0, 50.0),
        image_hu=scan.image_hu.astype(np.float32),
        placement=placement,
    )
    checked = 0
    for core in cores(scan, placement):
        planes = [plane[part] for plane, part in zip(image, core, strict=True) if part.any()]
        steps = np.abs(np.diff([plane.mean() for plane in planes]))
        # Blobs that reach over the end of the donor are filled with a mean there.
        if max(np.ptp(plane) for plane in planes) < 0.01 and len(steps) and steps.min() > 0.01:
            np.testing.assert_allclose(steps, scan.spacing[0], atol=0.01)
            checked += 1
    assert checked >= 2


def test_foreign_tissue_is_visible(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    for seed in range(3):
        image, mask = paint(scans, "pasted", seed)
        assert np.abs(image.astype(int) - scan.image_hu)[mask > 0].mean() > 40


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


def check_test_set(
    images: list[Path], output: Path, body_function: BodyFunction = quick_body
) -> None:
    """Files, geometry, and position against scikit-learn, on what was written."""
    report = json.loads((output / "placement.json").read_text())
    for kind in KINDS:
        depths, truths = [], []
        for path in images:
            source = SimpleITK.ReadImage(str(path))
            name = f"{case_name(path)}_0000.nii.gz"
            image = SimpleITK.ReadImage(str(output / kind / "images" / name))
            mask = SimpleITK.ReadImage(str(output / kind / "masks" / f"{case_name(path)}.nii.gz"))
            for written in (image, mask):
                assert written.GetSize() == source.GetSize()
                np.testing.assert_allclose(written.GetSpacing(), source.GetSpacing(), rtol=1e-5)
                np.testing.assert_allclose(written.GetOrigin(), source.GetOrigin(), atol=1e-3)
                np.testing.assert_allclose(written.GetDirection(), source.GetDirection(), atol=1e-5)
            before, after, truth = map(SimpleITK.GetArrayFromImage, (source, image, mask))
            body = body_function(before, source.GetSpacing()[::-1])
            assert (before == after)[~body].all() and truth.sum() > 0
            depths.append(positions(body, source.GetSpacing()[::-1])["skin_depth"])
            truths.append(truth[body] > 0)
        assert max(report["kinds"][kind]["pooled_auroc"].values()) < 0.6
        expected = roc_auc_score(np.concatenate(truths), np.concatenate(depths))
        figure = report["kinds"][kind]["pooled_auroc"]["skin_depth_far"]
        assert figure == pytest.approx(expected, abs=3e-3)


def test_test_set_on_disk(tmp_path: Path) -> None:
    folder = write_phantom_dataset(tmp_path, "Dataset900_Phantom", 3, 2, spacing=(5.0, 4.0, 4.0))
    images = sorted((folder / "imagesTr").iterdir())
    outputs = [tmp_path / "first", tmp_path / "second"]
    for output in outputs:
        synthesize_test_set(images, output, seed=5, body_function=quick_body)
    check_test_set(images, outputs[0])
    reports = [json.loads((output / "placement.json").read_text()) for output in outputs]
    assert reports[0] == reports[1]
    for scan, record in reports[0]["kinds"]["pasted"]["scans"].items():
        assert record["donor"] != scan
        assert max(record["auroc"].values()) < 0.6


def test_oblique_geometry_is_kept(tmp_path: Path) -> None:
    phantom = generate_phantom(3, (6.0, 5.0, 5.0))
    image = SimpleITK.GetImageFromArray(phantom.image_hu)
    image.SetSpacing((5.0, 5.0, 6.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, -1))
    image.SetOrigin((12.0, -30.0, 7.5))
    SimpleITK.WriteImage(image, str(tmp_path / "tilted_0000.nii.gz"))
    images = [tmp_path / "tilted_0000.nii.gz"]
    synthesize_test_set(images, tmp_path / "out", seed=1, body_function=quick_body)
    check_test_set(images, tmp_path / "out")


def test_mistakes_are_named(scans: tuple[Phantom, Phantom], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Unknown kind"):
        paint(scans, "magic")
    with pytest.raises(ValueError, match="body mask is empty"):
        paint(scans, "hyperdense", body=np.zeros_like(scans[0].body))
    with pytest.raises(ValueError, match="at least one image"):
        synthesize_test_set([], tmp_path, seed=0, body_function=quick_body)


@pytest.mark.skipif("SCREENER_TEST_DATA" not in os.environ, reason="SCREENER_TEST_DATA is not set")
def test_real_scans(tmp_path: Path) -> None:
    """Ten scans of the first raw dataset; artificial borders at -1024 HU included."""
    folder = min(Path(os.environ["SCREENER_TEST_DATA"]).glob("Dataset*"))
    images = sorted((folder / "imagesTr").iterdir())[:10]
    synthesize_test_set(images, tmp_path, seed=3, body_function=quick_body)
    check_test_set(images, tmp_path)
