"""Findings as a page lists them: read from JSON, or measured in an image of labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.errors import CaseError
from screener_nnu.least_volume import PIXEL_ML
from screener_nnu.map_kind import PICTURES
from screener_nnu.preprocessing.image_files import is_volume
from screener_nnu.preprocessing.volumes import read_volume
from screener_nnu.viewer.grid import Grid, check_same_grid

Point = tuple[float, float, float]


class FindingLike(Protocol):
    """One finding; points in mm, LPS."""

    @property
    def number(self) -> int:
        """1 for the highest peak; its label in the image."""

    @property
    def volume_ml(self) -> float:
        """Its volume; of a picture `PIXEL_ML` for each pixel."""

    @property
    def peak_score(self) -> float:
        """Highest score in it."""

    @property
    def mean_score(self) -> float:
        """Mean score of its voxels."""

    @property
    def percentile(self) -> float | None:
        """Of the peak among held-out scans, 0 to 100, if it is known."""

    @property
    def centre_mm(self) -> Point:
        """Its centre of mass."""

    @property
    def peak_mm(self) -> Point:
        """Where its score is highest; the page jumps there."""


class FindingsLike(Protocol):
    """The findings of a scan."""

    @property
    def rows(self) -> Sequence[FindingLike]:
        """The findings, the highest peak first."""

    @property
    def image(self) -> sitk.Image | None:
        """Their numbers in the geometry of the scan, 0 elsewhere; without it no outlines."""


@dataclass(frozen=True)
class ShownFinding:
    """One finding, see `FindingLike`."""

    number: int
    volume_ml: float
    peak_score: float
    mean_score: float
    percentile: float | None
    centre_mm: Point
    peak_mm: Point


@dataclass(frozen=True)
class ShownFindings:
    """The findings of a scan, see `FindingsLike`.

    Attributes:
        threshold: score that they lie above, where it is known.
        unit: of the scores, where it is known.
    """

    rows: tuple[ShownFinding, ...]
    image: sitk.Image | None = None
    threshold: float | None = None
    unit: str | None = None


def read_findings(paths: Sequence[Path], score: sitk.Image, case: str) -> ShownFindings:
    """Findings from a JSON file, an image of labels, or both.

    Args:
        paths: one file, or one of each kind.
        score: the map; rows are measured in it if there is no JSON.
        case: name used in messages.

    Raises:
        CaseError: a file is unreadable or lacks a value.
    """
    image, described = None, None
    for path in paths:
        if is_volume(path) or path.name.lower().endswith(PICTURES.labels):
            image = _read_labels(path, score, case)
        else:
            described = read_rows(path, case)
    if described is None:
        if image is None:
            raise CaseError(case, "no findings given: name a JSON file or an image of labels")
        return ShownFindings(measure_findings(image, score), image)
    return replace(described, image=image)


def read_rows(path: Path, case: str) -> ShownFindings:
    """The table of a JSON file as `screener_predict` writes it.

    Raises:
        CaseError: the file is unreadable or lacks a value.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(_row(entry) for entry in values["findings"])
        threshold, unit = values.get("threshold"), values.get("score_unit")
        return ShownFindings(
            rows,
            None,
            None if threshold is None else float(threshold),
            None if unit is None else str(unit),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CaseError(
            case,
            f"{path} is no list of findings ({error!r}): give the JSON file of screener_predict "
            "or an image of labels",
        ) from error


def _row(entry: dict[str, Any]) -> ShownFinding:
    percentile = entry.get("percentile")
    if "area_px" in entry:
        # A pixel is a voxel of 1 x 1 x 999 mm at the place of its index.
        places = {f"{n}_mm": [*entry[f"{n}_pixel"], 0] for n in ("centre", "peak")}
        entry = {**entry, **places, "volume_ml": PIXEL_ML * entry["area_px"]}
    centre = _point(entry["centre_mm"])
    return ShownFinding(
        int(entry["number"]),
        float(entry["volume_ml"]),
        float(entry["peak_score"]),
        float(entry["mean_score"]),
        None if percentile is None else float(percentile),
        centre,
        _point(entry["peak_mm"]) if "peak_mm" in entry else centre,
    )


def _point(values: Sequence[float]) -> Point:
    x, y, z = (float(value) for value in values)
    if not np.isfinite([x, y, z]).all():
        raise ValueError("a point is not finite")
    return x, y, z


def _read_labels(path: Path, score: sitk.Image, case: str) -> sitk.Image:
    image = read_volume(path, case)
    if image.GetPixelIDValue() in (sitk.sitkFloat32, sitk.sitkFloat64):
        raise CaseError(case, f"{path} is no image of labels: give one of whole numbers")
    check_same_grid(score, image, case, "image of labels")
    return image


def measure_findings(image: sitk.Image, score: sitk.Image) -> tuple[ShownFinding, ...]:
    """What is to be said of each label, the highest peak first; labels keep their numbers."""
    labels, scores = (np.asarray(sitk.GetArrayViewFromImage(i)).reshape(-1) for i in (image, score))
    places = np.flatnonzero(labels > 0)
    # Falling scores: the first place of a label is that of its peak.
    places = places[np.argsort(-scores[places], kind="stable")]
    numbers, first, groups = np.unique(labels[places], return_index=True, return_inverse=True)
    counts = np.bincount(groups, minlength=len(numbers))
    grid, shape = Grid.of_image(image), image.GetSize()[::-1]
    indices = np.stack(np.unravel_index(places, shape)[::-1])
    rows = []
    for i in np.argsort(first):
        centre = [float(axis[groups == i].mean()) for axis in indices]
        rows.append(
            ShownFinding(
                int(numbers[i]),
                float(counts[i] * grid.voxel_ml),
                float(scores[places[first[i]]]),
                float(scores[places[groups == i]].mean()),
                None,
                _point(grid.point(tuple(centre)).tolist()),
                _point(grid.point(tuple(indices[:, first[i]])).tolist()),
            )
        )
    return tuple(rows)
