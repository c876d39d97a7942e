"""Synthetic anomalies: what changes, where, and by how much."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.synthetic import (
    BlobSettings,
    Phantom,
    Placement,
    add_anomalies,
    generate_phantom,
    place_blobs,
)
from screener_nnu.synthetic.anomalies import KINDS, place_anomalies
from screener_nnu.synthetic.anomaly_tissue import Scan
from screener_nnu.synthetic.anomaly_warp import deformed, displacement
from screener_nnu.synthetic.blobs import Blob, draw_blob
from screener_nnu.synthetic.placement import BodyPlaces, blob_mask


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


@pytest.mark.parametrize("contrast", [(40.0, 120.0), (150.0, 160.0)])
@pytest.mark.parametrize(("kind", "sign"), [("hypodense", -1), ("hyperdense", 1)])
def test_contrast_is_within_its_range(
    scans: tuple[Phantom, Phantom], kind: str, sign: int, contrast: tuple[float, float]
) -> None:
    scan = scans[0]
    settings = BlobSettings(contrast=contrast)
    places = BodyPlaces(scan.body, scan.spacing)
    source = Scan(scan.image_hu, scan.body, scan.spacing)
    measured = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        placement = place_anomalies(source, places, kind, rng, settings)
        image, _ = paint(scans, kind, seed, placement=placement, settings=settings)
        for core in cores(scan, placement):
            tissue = core & (scan.image_hu > -900) & (image > -1024) & (image < 3071)
            change = (image.astype(int) - scan.image_hu)[tissue]
            if change.size:
                assert np.ptp(change) <= 1
                measured.append(sign * np.median(change))
    assert len(measured) > 5 and len(set(measured)) > 3
    assert contrast[0] - 1 <= min(measured) and max(measured) <= contrast[1] + 1


def test_air_has_no_density_to_change(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    image = np.where(np.arange(scan.body.shape[2]) % 2 == 0, -1000, 40)
    image = np.broadcast_to(image, scan.body.shape).astype(np.int16)
    for kind in ("hypodense", "hyperdense"):
        changed, mask = paint(scans, kind, image_hu=image)
        assert (changed[image == -1000] == -1000).all()
        assert (changed != image)[(image == 40) & (mask > 0)].all()


def test_hypodense_places_are_not_aerated(scans: tuple[Phantom, Phantom]) -> None:
    """The left half is lung: no place there, but places for denser tissue."""
    scan = scans[0]
    half = np.where(np.arange(scan.body.shape[2]) < scan.body.shape[2] // 2, -850, 40)
    image = np.broadcast_to(half, scan.body.shape).astype(np.int16)
    source, places = Scan(image, scan.body, scan.spacing), BodyPlaces(scan.body, scan.spacing)
    medians: dict[str, list[float]] = {"hypodense": [], "hyperdense": []}
    for kind, found in medians.items():
        for seed in range(3):
            placement = place_anomalies(source, places, kind, np.random.default_rng(seed))
            found += [float(np.median(image[b.box][b.weight > 0.5])) for b in placement.blobs]
    assert min(medians["hypodense"]) > -500 and min(medians["hyperdense"]) < -800


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
    assert checked >= 1


def test_the_change_is_visible(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    for kind in ("pasted", "constant", "deformation"):
        image, mask = paint(scans, kind, 2)
        assert np.abs(image.astype(int) - scan.image_hu)[mask > 0].mean() > 50


@pytest.fixture(scope="module")
def blob() -> Blob:
    rng = np.random.default_rng(3)
    return draw_blob(rng, (40, 60, 60), (2.0, 1.5, 1.5), (40.0, 45.0, 45.0), 16.0, 5.0)


@pytest.mark.parametrize("seed", range(8))
def test_displacement_is_smooth_and_rests_at_the_edge(blob: Blob, seed: int) -> None:
    spacing = (2.0, 1.5, 1.5)
    field = displacement(blob, spacing, 8.0, np.random.default_rng(seed))
    length = np.sqrt((field**2).sum(axis=0))
    assert length[blob.weight == 0].max() == 0
    assert length[(blob.weight > 0) & (blob.weight < 0.3)].max() < 3
    assert 4 < length.max() <= 8.0
    assert (length[blob.weight > 0.5] > 1).mean() > 0.6
    # Tissue keeps its order: the volume element is positive everywhere.
    gradient = np.stack([np.stack(np.gradient(part, *spacing), axis=-1) for part in field], axis=-2)
    assert np.linalg.det(gradient + np.eye(3)).min() > 0
    # No crack: the movement changes by less than 2.5 mm over a mm.
    for axis, size in enumerate(spacing):
        assert np.abs(np.diff(field, axis=axis + 1)).max() < 2.5 * size


def test_deformation_moves_a_ramp_by_the_displacement(blob: Blob) -> None:
    """HU that state the place (mm) show, after the deformation, where tissue came from."""
    spacing = (2.0, 1.5, 1.5)
    field = displacement(blob, spacing, 8.0, np.random.default_rng(1))
    inside = blob.weight > 0.5
    for axis, size in enumerate(spacing):
        place = np.arange(blob.weight.shape[axis], dtype=np.float32) * size
        shape = [-1 if a == axis else 1 for a in range(3)]
        ramp = np.broadcast_to(place.reshape(shape), blob.weight.shape).astype(np.float32)
        moved = deformed(ramp, blob, spacing, field)
        np.testing.assert_allclose((moved - ramp)[inside], field[axis][inside], atol=0.05)
        np.testing.assert_array_equal(moved[blob.weight == 0], ramp[blob.weight == 0])


def test_deformation_brings_no_new_hu(scans: tuple[Phantom, Phantom]) -> None:
    scan = scans[0]
    rng = np.random.default_rng(0)
    two = np.where(rng.uniform(size=scan.body.shape) < 0.5, -100, 300).astype(np.int16)
    image, mask = paint(scans, "deformation", image_hu=two)
    assert image.min() >= -100 and image.max() <= 300 and (image != two)[mask > 0].mean() > 0.5


def test_deformation_avoids_what_would_not_show(scans: tuple[Phantom, Phantom]) -> None:
    """Stripes in one half, flat tissue in the other: all blobs lie in the stripes."""
    scan = scans[0]
    x = np.arange(scan.body.shape[2])
    line = np.where(x < len(x) // 2, 600 * (x // 2 % 2), 50)
    image = np.broadcast_to(line, scan.body.shape).astype(np.int16)
    for seed in range(3):
        changed, mask = paint(scans, "deformation", seed, image_hu=image)
        assert np.abs(changed - image)[mask > 0].mean() > 30
        assert mask[..., len(x) // 2 + 8 :].sum() < 0.1 * mask.sum()
    with pytest.raises(ValueError, match="no place"):
        paint(scans, "deformation", image_hu=np.full_like(image, 50))


def test_mistakes_are_named(scans: tuple[Phantom, Phantom]) -> None:
    with pytest.raises(ValueError, match="Unknown kind"):
        paint(scans, "magic")
    with pytest.raises(ValueError, match="body mask is empty"):
        paint(scans, "hyperdense", body=np.zeros_like(scans[0].body))


def test_a_movement_is_no_longer_than_the_blob_is_deep(blob: Blob) -> None:
    spacing = (2.0, 1.5, 1.5)
    depth = ndimage.distance_transform_edt(np.pad(blob.weight > 0, 1), sampling=spacing).max()
    field = displacement(blob, spacing, 100.0, np.random.default_rng(2))
    assert 0.3 * depth < np.sqrt((field**2).sum(axis=0)).max() <= 0.6 * depth
