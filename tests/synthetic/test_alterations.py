"""The second family of anomalies: what changes, where, and by how much."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from screener_nnu.synthetic import Phantom, generate_phantom
from screener_nnu.synthetic.alterations import (
    ALTERED_KINDS,
    LEAST_CHANGE,
    REGIONS,
    add_alterations,
    draw_ellipsoid,
)
from screener_nnu.synthetic.altered_tissue import (
    Surroundings,
    blurred,
    inverted,
    mirrored,
    roughened,
    spiculated,
)
from screener_nnu.synthetic.anomalies import KINDS
from screener_nnu.synthetic.blobs import Blob

WINDOW = (-500.0, 300.0)
SCAN = Surroundings((2.0, 1.0, 1.0), 800.0, 40.0)


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return generate_phantom(11)


def altered(scan: Phantom, kind: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return add_alterations(scan.image_hu, scan.body, scan.spacing, WINDOW, kind, rng)


@pytest.mark.parametrize("kind", ALTERED_KINDS)
def test_what_counts_is_what_changed(phantom: Phantom, kind: str) -> None:
    image, mask = altered(phantom, kind)
    assert image.dtype == phantom.image_hu.dtype and mask.dtype == bool
    assert mask.any() and not mask[~phantom.body].any()
    before, after = (np.clip(v.astype(float), *WINDOW) for v in (phantom.image_hu, image))
    seen = np.abs(after - before) > LEAST_CHANGE * 800
    assert not (seen & ~mask).any()
    assert not (image != phantom.image_hu)[~phantom.body].any()
    # Gaps that were closed are few.
    assert seen[mask].mean() > 0.6
    again, same = altered(phantom, kind)
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(same, mask)
    assert (altered(phantom, kind, 1)[1] != mask).any()


@pytest.mark.parametrize("kind", ALTERED_KINDS)
def test_regions_keep_to_their_size(phantom: Phantom, kind: str) -> None:
    """No component is longer than the largest ellipsoid and its soft edge, in mm."""
    image, _ = altered(phantom, kind)
    labels, _ = ndimage.label(image != phantom.image_hu, np.ones((3, 3, 3)))
    for box in ndimage.find_objects(labels):
        sides = [(p.stop - p.start) * s for p, s in zip(box, phantom.spacing, strict=True)]
        step = max(phantom.spacing)
        assert max(sides) <= 2 * REGIONS.radius[1] + REGIONS.edge + step


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 2.0)])
def test_an_ellipsoid_has_its_volume_in_mm(spacing: tuple[float, float, float]) -> None:
    shape = tuple(int(60 / step) for step in spacing)
    for seed in range(3):
        drawn = draw_ellipsoid(
            np.random.default_rng(seed), shape, spacing, (30.0, 30.0, 30.0), 15.0, 5.0
        )
        half_axes = 15.0 * np.random.default_rng(seed).uniform(0.75, 1.0, 3)
        volume = float((drawn.weight > 0.5).sum()) * float(np.prod(spacing))
        assert volume == pytest.approx(4 / 3 * np.pi * half_axes.prod(), rel=0.06)


def ball(shape: tuple[int, int, int] = (16, 32, 32), radius: float = 14.0) -> Blob:
    """A ball in the middle of a box that is a whole volume."""
    centre = tuple((n - 1) / 2 * s for n, s in zip(shape, SCAN.spacing, strict=True))
    z, y, x = np.meshgrid(
        *(np.arange(n) * s - c for n, s, c in zip(shape, SCAN.spacing, centre, strict=True)),
        indexing="ij",
    )
    weight = (np.sqrt(z**2 + y**2 + x**2) < radius).astype(np.float32)
    box = tuple(slice(0, n) for n in shape)
    return Blob(box, weight, centre, radius)  # type: ignore[arg-type]


def texture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(40, 60, (16, 32, 32)).astype(np.float32)


def test_each_kind_changes_what_it_says() -> None:
    before, blob, rng = texture(), ball(), np.random.default_rng(3)
    inside = blob.weight > 0
    after = blurred(before, blob, SCAN, rng)
    assert after[inside].std() < 0.35 * before[inside].std()
    assert after[inside].mean() == pytest.approx(before[inside].mean(), abs=3)
    noise = roughened(before, blob, SCAN, rng) - before
    assert 0.045 * 800 < noise.std() < 0.13 * 800 and abs(noise.mean()) < 5
    # An independent turn of the array about its middle.
    flips = [np.flip(before, axis) for axis in range(3)]
    found = mirrored(before, blob, SCAN, rng)
    assert sum(np.array_equal(found, flipped) for flipped in flips) == 1
    turned = inverted(before, blob, SCAN, rng)
    assert np.corrcoef(turned[inside], before[inside])[0, 1] < -0.9
    assert turned[inside].mean() == pytest.approx(before[inside].mean(), abs=5)
    np.testing.assert_array_equal(turned[~inside], before[~inside])


def test_a_star_has_rays_of_soft_tissue() -> None:
    """In lung it has the body's median; a shell around its core is met by thin rays alone."""
    before, blob = np.full((16, 32, 32), -800, np.float32), ball()
    star = spiculated(before, blob, SCAN, np.random.default_rng(1)) > -400
    assert spiculated(before, blob, SCAN, np.random.default_rng(1)).max() == pytest.approx(
        40, abs=0.1
    )
    z, y, x = (
        np.arange(n) * s - c
        for n, s, c in zip((16, 32, 32), SCAN.spacing, blob.centre, strict=True)
    )
    distance = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
    assert star[distance < 3].all() and not star[distance > 16].any()
    assert 0.02 < star[(distance > 8) & (distance < 10)].mean() < 0.5
    assert ndimage.label(star, np.ones((3, 3, 3)))[1] == 1
    # In tissue like the body's it differs by the contrast.
    same = np.full_like(before, 40)
    contrast = np.abs(spiculated(same, blob, SCAN, np.random.default_rng(1)) - same).max()
    assert 80 <= contrast <= 200


def test_a_star_keeps_the_texture_of_the_tissue() -> None:
    """Its core is of another mean, and varies as the noise that was there."""
    noise = np.random.default_rng(0).normal(0, 30, (16, 32, 32)).astype(np.float32)
    before, blob = noise - 800, ball()
    after = spiculated(before, blob, SCAN, np.random.default_rng(1))
    core = np.zeros(before.shape, bool)
    core[8, 14:18, 14:18] = True
    assert after[core].mean() == pytest.approx(40, abs=15)
    assert np.corrcoef(after[core], noise[core])[0, 1] > 0.9
    assert 0.6 < after[core].std() / noise[core].std() < 1.2


@pytest.mark.parametrize("kind", ["blurred", "inverted"])
def test_gaps_of_a_picture_are_closed(kind: str) -> None:
    """In the plane of its one slice, as SciPy closes a plain image; no voxel between changed ones
    is left out.
    """
    rng = np.random.default_rng(0)
    image = rng.normal(40, 60, (1, 160, 160)).astype(np.float32)
    body, spacing = np.ones(image.shape, bool), (1.0, 1.0, 1.0)
    changed, mask = add_alterations(image, body, spacing, WINDOW, kind, np.random.default_rng(2))
    before, after = (np.clip(v, *WINDOW) for v in (image, changed))
    seen = (np.abs(after - before) > LEAST_CHANGE * 800)[0]
    touched = (changed != image)[0]
    closed = ndimage.binary_closing(np.pad(seen, 1))[1:-1, 1:-1] & touched
    assert (closed & ~seen).sum() > 20
    np.testing.assert_array_equal(mask[0], seen | closed)


def test_the_families_share_no_kind(phantom: Phantom) -> None:
    assert not set(ALTERED_KINDS) & set(KINDS)
    with pytest.raises(ValueError, match="'pasted'; choose one of blurred"):
        altered(phantom, "pasted")
    empty = np.zeros_like(phantom.body)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="body mask is empty"):
        add_alterations(phantom.image_hu, empty, phantom.spacing, WINDOW, "blurred", rng)
