"""Maps with known places in them, in geometries that are not the easy one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

SPACING = (0.8, 1.1, 2.5)
ORIGIN = (-31.5, 12.25, -640.0)


@dataclass(frozen=True)
class Scan:
    """A map and a body mask, as arrays `(z, y, x)` and as images."""

    values: NDArray[np.float32]
    body_mask: NDArray[np.bool_]
    score: sitk.Image
    body: sitk.Image

    @property
    def affine(self) -> NDArray[np.float64]:
        """From voxel indices (x, y, z, 1) to mm, built by hand."""
        direction = np.array(self.score.GetDirection()).reshape(3, 3)
        affine = np.eye(4)
        affine[:3, :3] = direction @ np.diag(SPACING)
        affine[:3, 3] = ORIGIN
        return affine


def directions() -> dict[str, NDArray[np.float64]]:
    oblique = Rotation.from_euler("xyz", [12, -7, 25], degrees=True).as_matrix()
    return {
        "straight": np.eye(3),
        "flipped": np.diag([-1.0, -1.0, 1.0]),
        "permuted": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        "oblique": oblique,
        "oblique and flipped": oblique @ np.diag([-1.0, 1.0, -1.0]),
    }


@pytest.fixture(params=sorted(directions()))
def direction(request: pytest.FixtureRequest) -> NDArray[np.float64]:
    return directions()[request.param]


@pytest.fixture
def scan(direction: NDArray[np.float64]) -> Scan:
    """Smooth noise, so that places have all sizes and odd shapes."""
    generator = np.random.default_rng(3)
    values = ndimage.gaussian_filter(generator.normal(size=(18, 40, 33)), (0.7, 1.2, 1.2))
    values = (10 * values / values.std()).astype(np.float32)
    mask = np.zeros(values.shape, dtype=bool)
    mask[2:16, 5:36, 4:30] = True
    return make_scan(values, mask, direction)


def make_scan(
    values: NDArray[np.floating], mask: NDArray[np.bool_], direction: NDArray[np.float64]
) -> Scan:
    images = []
    for array in (values.astype(np.float32), mask.astype(np.uint8)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING)
        image.SetOrigin(ORIGIN)
        image.SetDirection(direction.ravel())
        images.append(image)
    return Scan(values.astype(np.float32), mask, *images)
