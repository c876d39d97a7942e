"""Anomaly scores without learning.

A data set on which one of these wins says nothing about a method: bright, rare, central or
superficial voxels are then enough. Positional scores come in both orientations for that reason.
All arrays are `(z, y, x)`, spacing is in mm in the same order, and higher means more anomalous.
A picture is one slice of grey values in the place of HU, with pixels in the place of mm.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from screener_nnu.errors import ScreenerError
from screener_nnu.paths import FINGERPRINT_FILE, preprocessed_folder

SMOOTHING_MM = 2.0
LOCAL_PIXELS = 9
"""Side of the square in which `local_deviation` looks at a picture."""


@dataclass(frozen=True)
class BaselineInput:
    """What a baseline may look at.

    Attributes:
        image_hu: CT in HU `(z, y, x)`.
        body: body mask `(z, y, x)`.
        spacing: voxel spacing `(z, y, x)` in mm.
        hu_edges: edges of the HU histogram of the bodies of all planned scans `(N + 1,)`, or None.
        hu_counts: voxels in its bins `(N,)`, or None.
    """

    image_hu: NDArray[np.floating] | NDArray[np.integer]
    body: NDArray[np.bool_]
    spacing: tuple[float, float, float]
    hu_edges: NDArray[np.floating] | None = None
    hu_counts: NDArray[np.number] | None = None

    @cached_property
    def depth_mm(self) -> NDArray[np.float32]:
        """Distance to the nearest voxel outside the body in mm, zero outside, `(z, y, x)`."""
        depth = np.zeros(self.body.shape, dtype=np.float32)
        if not self.body.any():
            return depth
        # The distance transform is slow, so it sees the body with one voxel of surroundings.
        extent = ndimage.find_objects(self.body.view(np.uint8))[0]
        box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in extent)
        inside = self.body[box]
        if inside.all():
            # The body fills its box, so there is no outside; the border then counts as skin. The
            # one slice of a picture has no border before and behind it.
            border = [int(size > 1) for size in inside.shape]
            padded = np.pad(inside, [(width, width) for width in border])
            around = ndimage.distance_transform_edt(padded, sampling=self.spacing)
            depth[box] = around[tuple(slice(width, -width or None) for width in border)]
        else:
            depth[box] = ndimage.distance_transform_edt(inside, sampling=self.spacing)
        return depth

    @cached_property
    def centre_distance_mm(self) -> NDArray[np.float32]:
        """Distance to the centre of the volume in mm, `(z, y, x)`."""
        squared = np.zeros((1, 1, 1), dtype=np.float32)
        for axis, (size, step) in enumerate(zip(self.body.shape, self.spacing, strict=True)):
            offset = (np.arange(size, dtype=np.float32) - (size - 1) / 2) * step
            along = tuple(-1 if other == axis else 1 for other in range(3))
            squared = squared + np.square(offset).reshape(along)
        return np.sqrt(squared).astype(np.float32, copy=False)


Baseline = Callable[[BaselineInput], NDArray[np.float32]]


def hu_deviation(given: BaselineInput) -> NDArray[np.float32]:
    """Distance of the HU value to the mean of this scan's body, `|HU - mean|`, in HU."""
    if not given.body.any():
        raise ScreenerError("the body mask is empty, so the body has no mean HU")
    mean = np.float32(given.image_hu[given.body].mean(dtype=np.float64))
    return np.abs(given.image_hu.astype(np.float32) - mean)


def hu_rarity(given: BaselineInput) -> NDArray[np.float32]:
    """Rarity of the HU value in the bodies of all planned scans: `-log p(HU)`, nats, p per HU."""
    return _rarity(given.image_hu, given)


def smoothed_hu_rarity(given: BaselineInput) -> NDArray[np.float32]:
    """Rarity of the HU value after Gaussian smoothing within the body (sigma 2 mm), in nats.

    The smoothing is normalised by the smoothed body mask, so that air does not leak under the
    skin; out of its reach the image stays as it is.
    """
    sigma = [SMOOTHING_MM / step for step in given.spacing]
    weight = ndimage.gaussian_filter(given.body.astype(np.float32), sigma, mode="nearest")
    image = given.image_hu.astype(np.float32)
    blurred = ndimage.gaussian_filter(np.where(given.body, image, 0), sigma, mode="nearest")
    smooth = np.divide(blurred, weight, out=image.copy(), where=weight > 1e-3)
    return _rarity(smooth, given)


def _rarity(
    image: NDArray[np.floating] | NDArray[np.integer], given: BaselineInput
) -> NDArray[np.float32]:
    """Minus log density of each value, with one voxel added to each bin so that none is empty."""
    if given.hu_edges is None or given.hu_counts is None:
        raise ScreenerError("HU rarity needs the HU histogram of the training set")
    edges = np.asarray(given.hu_edges, dtype=np.float64)
    counts = np.asarray(given.hu_counts, dtype=np.float64) + 1.0
    rarity = -np.log(counts / counts.sum() / np.diff(edges)).astype(np.float32)
    # Values outside the histogram belong to its end bins, hence only the inner edges.
    return rarity[np.searchsorted(edges[1:-1].astype(np.float32), image, side="right")]


def centre_distance(given: BaselineInput) -> NDArray[np.float32]:
    """Distance to the centre of the volume in mm: far from it is anomalous."""
    return given.centre_distance_mm


def centre_proximity(given: BaselineInput) -> NDArray[np.float32]:
    """Minus the distance to the centre of the volume in mm: near it is anomalous."""
    return -given.centre_distance_mm


def skin_depth(given: BaselineInput) -> NDArray[np.float32]:
    """Depth under the skin in mm: deep is anomalous."""
    return given.depth_mm


def skin_proximity(given: BaselineInput) -> NDArray[np.float32]:
    """Minus the depth under the skin in mm: superficial is anomalous."""
    return -given.depth_mm


def brightness(given: BaselineInput) -> NDArray[np.float32]:
    """The grey value: bright is anomalous."""
    return given.image_hu.astype(np.float32)


def darkness(given: BaselineInput) -> NDArray[np.float32]:
    """Minus the grey value: dark is anomalous."""
    return -given.image_hu.astype(np.float32)


def local_deviation(given: BaselineInput) -> NDArray[np.float32]:
    """Standard deviation of the grey values in a square of `LOCAL_PIXELS` around each pixel."""
    # About the mean of the picture: squares of large values would lose the small differences.
    image = given.image_hu - given.image_hu.mean(dtype=np.float64)
    size = (1, LOCAL_PIXELS, LOCAL_PIXELS)
    mean = ndimage.uniform_filter(image, size, mode="nearest")
    squares = ndimage.uniform_filter(np.square(image), size, mode="nearest")
    return np.sqrt(np.maximum(squares - np.square(mean), 0.0)).astype(np.float32)


#: Of scans.
BASELINES: dict[str, Baseline] = {
    "hu_deviation": hu_deviation,
    "hu_rarity": hu_rarity,
    "smoothed_hu_rarity": smoothed_hu_rarity,
    "centre_distance": centre_distance,
    "centre_proximity": centre_proximity,
    "skin_depth": skin_depth,
    "skin_proximity": skin_proximity,
}
#: Of pictures.
PICTURE_BASELINES: dict[str, Baseline] = {
    "brightness": brightness,
    "darkness": darkness,
    "grey_deviation": hu_deviation,
    "local_deviation": local_deviation,
    "centre_distance": centre_distance,
    "centre_proximity": centre_proximity,
    "border_depth": skin_depth,
    "border_proximity": skin_proximity,
}
NEED_HISTOGRAM = frozenset({"hu_rarity", "smoothed_hu_rarity"})


def is_baseline(name: str) -> bool:
    """Whether a method is a baseline, of scans or of pictures."""
    return name in BASELINES or name in PICTURE_BASELINES


def baseline_names(has_histogram: bool, pictures: bool = False) -> list[str]:
    """Baselines that can be computed with or without the training set's HU histogram."""
    if pictures:
        return list(PICTURE_BASELINES)
    return [name for name in BASELINES if has_histogram or name not in NEED_HISTOGRAM]


@dataclass(frozen=True)
class HuHistogram:
    """HU values of the bodies of all planned scans.

    Attributes:
        edges: edges of the bins in HU `(N + 1,)`.
        counts: voxels in the bins `(N,)`.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Refuses a histogram whose edges and counts do not belong together."""
        fitting = self.counts.size and self.edges.size == self.counts.size + 1
        if not fitting or not (np.diff(self.edges) > 0).all():
            raise ScreenerError(
                "the HU histogram of the training set is damaged; plan the data set again"
            )


def training_histogram(dataset: int | str) -> HuHistogram:
    """HU histogram of the bodies of a data set, from its fingerprint.

    Like nnU-Net's fingerprint it is of all scans, those that are kept for evaluation among them.

    Raises:
        ScreenerError: the data set was not planned, or by a version without that histogram.
    """
    path = preprocessed_folder(dataset) / FINGERPRINT_FILE
    if not path.is_file():
        raise ScreenerError(f"{path} does not exist; run screener_plan_and_preprocess -d {dataset}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["hu_histogram"]
        edges = np.asarray(stored["edges"], dtype=float)
        counts = np.asarray(stored["counts"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        raise ScreenerError(f"{path} has no HU histogram; plan the data set again") from error
    return HuHistogram(edges, counts)
