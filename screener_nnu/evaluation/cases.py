"""What is read of one case, checked, and how: voxels that count, annotated ones, and scores."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from screener_nnu.errors import CaseError
from screener_nnu.evaluation.baselines import (
    BASELINES,
    NEED_HISTOGRAM,
    PICTURE_BASELINES,
    BaselineInput,
    HuHistogram,
    baseline_names,
)
from screener_nnu.evaluation.froc import MIN_VOLUME_MM3
from screener_nnu.evaluation.pairing import CaseFiles
from screener_nnu.preprocessing.pictures import read_picture
from screener_nnu.preprocessing.volumes import (
    Geometry,
    is_flat,
    read_array,
    read_geometry,
    read_labels,
)

# Part of every signature: a change of what is counted must count anew.
_FORMAT = 2


@dataclass(frozen=True)
class Measurement:
    """Settings of the counts; travels to worker processes.

    Attributes:
        labels: annotation values that are pathology; None takes all above zero.
        hu_histogram: HU of the bodies of all planned scans, for the rarity baselines.
        seed: seed of everything drawn.
        min_volume_mm3: least volume of a detection and of a lesion in the FROC; pixels of pictures.
    """

    labels: tuple[int, ...] | None = None
    hu_histogram: HuHistogram | None = None
    seed: int = 0
    min_volume_mm3: float = MIN_VOLUME_MM3

    def describe(self, methods: Iterable[str]) -> dict[str, Any]:
        """The settings that change the counts of some methods, for a signature."""
        histogram = None
        if self.hu_histogram is not None and not NEED_HISTOGRAM.isdisjoint(methods):
            content = self.hu_histogram.edges.tobytes() + self.hu_histogram.counts.tobytes()
            histogram = hashlib.sha256(content).hexdigest()[:16]
        return {
            "format": _FORMAT,
            "labels": sorted(self.labels) if self.labels is not None else None,
            "hu_histogram": histogram,
            "seed": self.seed,
            "min_volume_mm3": self.min_volume_mm3,
        }


@dataclass(frozen=True)
class CaseLabels:
    """Which voxels of a case count, and which of them are annotated.

    Attributes:
        counted: body mask united with the annotation `(z, y, x)`.
        annotated: whether each counted voxel is annotated `(counted voxels,)`.
        body: body mask `(z, y, x)`.
        reference: geometry that all files of the case must have.
    """

    counted: NDArray[np.bool_]
    annotated: NDArray[np.bool_]
    body: NDArray[np.bool_]
    reference: Geometry

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing `(z, y, x)` in mm; of a picture in pixels."""
        if is_flat(self.reference):
            return 1.0, 1.0, 1.0
        x, y, z = self.reference.spacing
        return z, y, x

    @property
    def annotation(self) -> NDArray[np.bool_]:
        """Annotated voxels `(z, y, x)`."""
        volume = np.zeros(self.counted.shape, dtype=bool)
        volume[self.counted] = self.annotated
        return volume


def load_labels(files: CaseFiles, labels: Collection[int] | None = None) -> CaseLabels:
    """Reads the voxels that count and those that are annotated.

    Args:
        files: files of the case.
        labels: values of the annotation that are pathology; None takes all above zero.
            Voxels of other values count as not annotated where they are in the body.

    Raises:
        CaseError: when a file cannot be read, has another geometry or holds no whole numbers, or
            the body is empty.
    """
    reference = read_geometry(next(iter(files.maps.values())), files.case)
    body = read_labels(files.body, files.case, reference) > 0
    if not body.any():
        raise CaseError(files.case, "the body mask is empty; predict this case again")
    mask = read_labels(files.mask, files.case, reference)
    annotated = mask > 0 if labels is None else np.isin(mask, sorted(labels))
    counted = body | annotated
    return CaseLabels(counted, annotated[counted], body, reference)


def iterate_scores(
    files: CaseFiles,
    labels: CaseLabels,
    hu_histogram: HuHistogram | None = None,
    wanted: Collection[str] | None = None,
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yields the scores of one method after the other, then of the baselines.

    Args:
        files: files of the case.
        labels: which of its voxels count.
        hu_histogram: HU of the bodies of all planned scans; without it HU rarity is left out.
        wanted: methods to yield; None yields all.

    Yields:
        Name of the method, and its scores of the counted voxels `(counted voxels,)`.

    Raises:
        CaseError: when a file cannot be read, has another geometry, or holds NaN.
    """
    for method, path in files.maps.items():
        if wanted is None or method in wanted:
            scores = read_array(path, files.case, labels.reference)
            yield method, scores.astype(np.float32, copy=False)[labels.counted]
    names = [
        name
        for name in baseline_names(hu_histogram is not None, files.is_picture)
        if wanted is None or name in wanted
    ]
    if files.image is None or not names:
        return
    read = read_grey if files.is_picture else read_array
    given = BaselineInput(
        read(files.image, files.case, labels.reference),
        labels.body,
        labels.spacing,
        hu_histogram.edges if hu_histogram else None,
        hu_histogram.counts if hu_histogram else None,
    )
    functions = PICTURE_BASELINES if files.is_picture else BASELINES
    for name in names:
        yield name, functions[name](given)[labels.counted]


def read_grey(path: Path, case: str, like: Geometry | None = None) -> NDArray[np.float32]:
    """Grey values `(1, H, W)` of a picture, those of colours averaged.

    Raises:
        CaseError: it cannot be read, or has another size than the geometry.
    """
    pixels = read_picture(path, case, may_be_constant=True).pixels
    grey = pixels.mean(axis=0, dtype=np.float32)[None]
    if like is not None and grey.shape != like.size[::-1]:
        sizes = f"{grey.shape[:0:-1]} and {like.size[:2]}"
        raise CaseError(case, f"{path} and its map differ in size: {sizes} pixels (x, y)")
    return grey
