"""Where the voxels of a page lie: turned, flipped and oblique scans against SciPy and SimpleITK."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage
from scipy.spatial.transform import Rotation

from screener_nnu.errors import CaseError
from screener_nnu.preprocessing.reading import Geometry, RawImage
from screener_nnu.viewer.grid import (
    LARGEST_VOLUME,
    Grid,
    check_same_grid,
    image_of,
    page_grid,
    resample,
    to_lps,
    volumes_on,
)

CODES = ("LPS", "RAI", "PIR", "SLA")


def oblique(shape: tuple[int, int, int], seed: int = 0) -> sitk.Image:
    """Smooth noise in a scan that is turned by 12, -8 and 5 degrees."""
    noise = np.random.default_rng(seed).normal(0, 300, shape)
    image = sitk.GetImageFromArray(ndimage.gaussian_filter(noise, 1.5).astype(np.float32))
    image.SetSpacing((1.1, 0.9, 2.5))
    image.SetOrigin((-40.0, 25.0, 310.0))
    axes = Rotation.from_euler("zyx", (12, -8, 5), degrees=True).as_matrix()
    image.SetDirection(axes.reshape(-1).tolist())
    return image


def values_at(image: sitk.Image, points: np.ndarray) -> np.ndarray:
    """Trilinear values at places (mm), `(n, 3)`, computed without SimpleITK's resampling."""
    axes = np.reshape(image.GetDirection(), (3, 3))
    steps = (points - np.asarray(image.GetOrigin())) @ axes / np.asarray(image.GetSpacing())
    array = sitk.GetArrayFromImage(image).astype(float)
    return ndimage.map_coordinates(array, steps.T[::-1], order=1, mode="nearest")


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("coarser", [1.0, 1.6])
def test_volumes_show_what_lies_at_their_place_in_the_patient(code: str, coarser: float) -> None:
    image = sitk.DICOMOrient(oblique((14, 30, 26)), code)
    lps = to_lps(image)
    grid = page_grid(Grid.of_image(lps), coarser)
    shown = volumes_on(grid, lps, lps, None, None)
    inner = tuple(slice(1, -1) for _ in range(3))
    z, y, x = np.mgrid[tuple(slice(0, n) for n in shown.hu.shape)]
    axes = np.reshape(grid.direction, (3, 3))
    index = np.stack([a[inner].reshape(-1) for a in (x, y, z)], axis=1)
    points = np.asarray(grid.origin) + (index * np.asarray(grid.spacing)) @ axes.T
    expected = values_at(image, points)
    np.testing.assert_allclose(shown.hu[inner].reshape(-1), expected, atol=0.02)
    # To the left, back and head, each more than along the other two directions.
    assert (np.argmax(np.abs(axes), axis=0) == [0, 1, 2]).all() and (np.diag(axes) > 0.9).all()


@pytest.mark.parametrize("code", CODES)
def test_a_scan_read_for_prediction_keeps_its_place(code: str) -> None:
    image = sitk.DICOMOrient(oblique((9, 12, 10), seed=3), code)
    lps = sitk.DICOMOrient(image, "LPS")
    array = sitk.GetArrayFromImage(lps).astype(np.float32)
    raw = RawImage("a", array, lps.GetSpacing()[::-1], Geometry.of_image(image))
    made = image_of(raw)
    np.testing.assert_allclose(made.GetOrigin(), lps.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(made.GetDirection(), lps.GetDirection(), atol=1e-9)
    assert made.GetSpacing() == pytest.approx(lps.GetSpacing()) and made.GetSize() == lps.GetSize()


@pytest.mark.parametrize(
    ("size", "spacing"),
    [
        ((512, 512, 400), (0.8, 0.8, 1.0)),
        ((512, 512, 90), (0.97, 0.97, 5.0)),
        ((512, 400, 1700), (0.9, 0.9, 0.6)),
        ((90, 70, 40), (4.0, 4.0, 3.0)),
    ],
)
def test_a_page_covers_the_scan_with_few_voxels(
    size: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    axes = Rotation.from_euler("x", 9, degrees=True).as_matrix().reshape(-1)
    whole = Grid(size, spacing, (1.0, 2.0, 3.0), tuple(axes))
    grid = page_grid(whole)
    assert max(grid.size[:2]) <= 256 and np.prod(grid.size) <= LARGEST_VOLUME
    np.testing.assert_allclose(np.multiply(grid.size, grid.spacing), np.multiply(size, spacing))
    assert grid.spacing[0] == pytest.approx(grid.spacing[1], rel=0.01)
    assert (np.asarray(grid.spacing) >= np.asarray(spacing) * 0.999).all()
    for corner in ((-0.5, -0.5, -0.5), tuple(n - 0.5 for n in grid.size)):
        same = corner if corner[0] < 0 else tuple(n - 0.5 for n in size)
        np.testing.assert_allclose(grid.point(corner), whole.point(same))


def test_places_and_voxels_belong_together() -> None:
    grid = Grid.of_image(oblique((9, 12, 10)))
    assert grid.index(tuple(grid.point((3.2, 7.9, 0.6)))) == (3, 8, 1)
    assert grid.index((1e6, 1e6, -1e6))[0] in (0, 9)


def test_what_is_much_coarser_is_averaged() -> None:
    """Stripes of one voxel would come back as stripes of many if every sixth was picked."""
    stripes = np.zeros((6, 6, 120), np.float32)
    stripes[..., ::2] = 1000
    image = sitk.GetImageFromArray(stripes)
    grid = page_grid(Grid.of_image(image), 5.3)
    inner = sitk.GetArrayFromImage(resample(image, grid))[..., 2:-2]
    np.testing.assert_allclose(inner, 500, atol=25)


@pytest.mark.parametrize("change", ["size", "origin", "direction"])
def test_a_map_of_another_scan_is_refused(phantom: Any, change: str) -> None:
    other = sitk.Image(phantom.score)
    if change == "size":
        other = other[1:, :, :]
    elif change == "origin":
        other.SetOrigin((-30.0, 13.0, -400.0))
    else:
        other.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    check_same_grid(phantom.image, phantom.score, "one", "map")
    with pytest.raises(CaseError, match="one: the map .*give the scan that it was made from"):
        check_same_grid(phantom.image, other, "one", "map")
