"""The voxel grid of a page: the scan's axes turned to LPS, coarse enough to be carried along.

Grids are in SimpleITK's order (x, y, z), arrays in (z, y, x).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError
from screener_nnu.preprocessing.reading import CANONICAL, RawImage
from screener_nnu.preprocessing.volumes import PICTURE_DEPTH

LARGEST_PLANE = 256
# Pixels across a picture, which is one slice.
LARGEST_PICTURE = 1024
# What a browser holds without effort, and more than 256 x 256 x 400.
LARGEST_VOLUME = 28_000_000
_AIR = -1024.0
# Corners of two grids may differ by this part of a voxel and still be those of one scan.
_TOLERANCE = 0.2


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a page lie in the patient (mm, LPS)."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of_image(cls, image: sitk.Image) -> Grid:
        """The grid of a 3D image."""
        return cls(
            image.GetSize(), image.GetSpacing(), image.GetOrigin(), tuple(image.GetDirection())
        )

    @property
    def is_picture(self) -> bool:
        """Whether this is a single slice of pixels."""
        return self.size[2] == 1 and float(self.spacing[2]) == PICTURE_DEPTH

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel (ml)."""
        return math.prod(self.spacing) / 1000

    def point(self, index: tuple[float, ...]) -> np.ndarray:
        """Place of a voxel (mm) from its index (x, y, z)."""
        axes = np.reshape(self.direction, (3, 3))
        return np.asarray(self.origin) + axes @ (np.asarray(index) * self.spacing)

    def index(self, point: tuple[float, ...]) -> tuple[int, ...]:
        """The voxel (x, y, z) nearest to a place (mm), inside of the grid."""
        axes = np.reshape(self.direction, (3, 3))
        place = np.linalg.solve(axes, np.asarray(point) - self.origin) / self.spacing
        inside = np.clip(np.rint(place), 0, np.asarray(self.size) - 1)
        return tuple(int(number) for number in inside)


@dataclass(frozen=True)
class Volumes:
    """What a page shows, on one grid, (z, y, x).

    Attributes:
        grid: where the voxels lie.
        hu: the scan (HU), float32; values of a picture, of RGB (z, y, x, 3).
        score: the anomaly map, float32.
        body: where the map counts.
        labels: numbers of the findings, 0 elsewhere; nothing without findings.
    """

    grid: Grid
    hu: np.ndarray
    score: np.ndarray
    body: np.ndarray
    labels: np.ndarray | None


def to_lps(image: sitk.Image) -> sitk.Image:
    """Permutes and flips axes so that they point to the left, back and head."""
    return sitk.DICOMOrient(image, CANONICAL)


def image_of(raw: RawImage) -> sitk.Image:
    """A scan that was read for prediction as an image (HU) with LPS axes, or a picture."""
    colours = raw.array.ndim == 4
    array = np.moveaxis(raw.array, 0, -1) if colours else raw.array
    image = sitk.GetImageFromArray(array, isVector=colours)
    probe = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    probe.SetDirection(raw.geometry.direction)
    direction = sitk.DICOMOrient(probe, CANONICAL).GetDirection()
    axes = np.reshape(raw.geometry.direction, (3, 3))
    # An axis of the file that was flipped starts at its other end.
    flipped = (axes.T @ np.reshape(direction, (3, 3))).sum(axis=1) < 0
    start = np.where(flipped, np.asarray(raw.geometry.size) - 1, 0)
    origin = np.asarray(raw.geometry.origin) + axes @ (start * raw.geometry.spacing)
    image.SetSpacing(raw.spacing[::-1])
    image.SetOrigin(origin.tolist())
    image.SetDirection(direction)
    return image


def check_same_grid(image: sitk.Image, other: sitk.Image, case: str, name: str) -> None:
    """Compares size and corners of a scan, or its map, with those of another image.

    Raises:
        CaseError: they are not of one scan.
    """
    if image.GetSize() != other.GetSize():
        raise CaseError(
            case,
            f"the {name} has {other.GetSize()} voxels and the scan {image.GetSize()}: "
            "give the scan that it was made from",
        )
    grids = Grid.of_image(image), Grid.of_image(other)
    corners = [tuple(c) for c in product(*((0, n - 1) for n in image.GetSize()))]
    gap = max(float(np.abs(grids[0].point(c) - grids[1].point(c)).max()) for c in corners)
    if gap > _TOLERANCE * min(image.GetSpacing()):
        raise CaseError(
            case,
            f"the {name} lies up to {gap:.1f} mm beside the scan: give the scan that it was "
            "made from",
        )


def page_grid(grid: Grid, coarser: float = 1.0) -> Grid:
    """A grid over the same box with at most 256 voxels across an axial slice, 1024 of a picture.

    In-plane voxels are squares; slices are never thinner than these, and never interpolated.

    Args:
        grid: of the scan, in LPS.
        coarser: factor on the smallest possible voxel size.
    """
    extent = np.multiply(grid.size, grid.spacing)
    most = LARGEST_PICTURE if grid.is_picture else LARGEST_PLANE
    side = coarser * max(*grid.spacing[:2], extent[0] / most, extent[1] / most)
    while True:
        size = np.maximum(np.rint(extent / np.maximum(grid.spacing, side)), 1).astype(int)
        if math.prod(size.tolist()) <= LARGEST_VOLUME:
            break
        side *= 1.02
    spacing = extent / size
    axes = np.reshape(grid.direction, (3, 3))
    # The box stays: the first voxel's centre moves inwards by half of what a voxel grows.
    origin = np.asarray(grid.origin) + axes @ ((spacing - grid.spacing) / 2)
    return Grid(tuple(size.tolist()), tuple(spacing), tuple(origin), grid.direction)


def resample(
    image: sitk.Image, grid: Grid, nearest: bool = False, outside: float = 0
) -> sitk.Image:
    """An image on another grid, trilinearly or from the nearest voxel."""
    if not nearest:
        several = image.GetNumberOfComponentsPerPixel() > 1
        kind = sitk.sitkVectorFloat32 if several else sitk.sitkFloat32
        image = _smooth(sitk.Cast(image, kind), grid)
    return sitk.Resample(
        image,
        list(grid.size),
        sitk.Transform(),
        sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear,
        list(grid.origin),
        list(grid.spacing),
        list(grid.direction),
        outside,
    )


def _smooth(image: sitk.Image, grid: Grid) -> sitk.Image:
    """Averages along axes that lose more than half of their voxels.

    Up to there linear interpolation averages enough by itself, and keeps edges sharp.
    """
    factors = np.divide(grid.spacing, image.GetSpacing())
    variance = np.maximum(factors**2 - 4, 0) / 12
    if variance.max() < 0.05:
        return image
    return sitk.DiscreteGaussian(image, variance.tolist(), useImageSpacing=False)


def volumes_on(
    grid: Grid,
    image: sitk.Image,
    score: sitk.Image,
    body: sitk.Image | None,
    labels: sitk.Image | None,
) -> Volumes:
    """Resamples what a page shows.

    Args:
        grid: of the page.
        image: the scan (HU), in LPS as the others.
        score: the map.
        body: above 0 where the map counts; everywhere if there is none.
        labels: numbers of the findings.
    """
    inside = np.ones(grid.size[::-1], dtype=bool)
    if body is not None:
        inside = _array(resample(body > 0, grid, nearest=True)) > 0
    return Volumes(
        grid,
        _array(resample(image, grid, outside=_AIR)),
        _array(resample(score, grid)),
        inside,
        None if labels is None else _array(resample(labels, grid, nearest=True)),
    )


def _array(image: sitk.Image) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(image))
