"""Findings of an anomaly map: which places are listed, in which order, and what is said of each."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.findings.components import Components, label_components
from screener_nnu.findings.finding import Finding, Findings, LeftOut, Point, Voxel
from screener_nnu.least_volume import MINIMUM_ML
from screener_nnu.score_units import NATS, behind

LIMIT = 50
# A label has 16 bits.
_MOST_LABELS = 65535
# Rounding must not turn away a component of just the smallest volume.
_SLACK = 1e-9

Percentile = Callable[[float], float | None]


def find_findings(
    case: str,
    score: sitk.Image,
    body: sitk.Image,
    threshold: float,
    percentile: Percentile | None = None,
    minimum_ml: float = MINIMUM_ML,
    limit: int = LIMIT,
    unit: str = NATS,
) -> Findings:
    """The connected places of the body whose scores lie above a threshold.

    Places are connected in the 26-neighbourhood and numbered by falling peak. So a higher
    threshold, or a lower limit, keeps the order of what is left. Equal peaks are ordered by volume.

    Args:
        case: name of the scan.
        score: anomaly map (in `unit`).
        body: mask of the body, in the same geometry.
        threshold: only voxels strictly above it belong to a finding (in `unit`).
        percentile: place of a score among normal scans, 0 to 100, or None where it is unknown.
        minimum_ml: smallest volume of a finding.
        limit: most findings that are listed; the others are counted.
        unit: of the scores, `none` where they have none.

    Raises:
        CaseError: map and mask differ in geometry.
        ScreenerError: threshold, volume or limit make no sense.
    """
    threshold = float(threshold)  # a NumPy number would not fit into JSON
    _check_request(threshold, minimum_ml, limit, unit)
    _check_geometry(case, score, body)
    scores = sitk.GetArrayViewFromImage(score)
    components = label_components((scores > threshold) & (sitk.GetArrayViewFromImage(body) != 0))
    values = scores.reshape(-1)[components.places]
    voxel_ml = math.prod(score.GetSpacing()) / 1000
    sizes = np.bincount(components.labels, minlength=components.number + 1)
    large = sizes * voxel_ml * (1 + _SLACK) >= minimum_ml
    large[0] = False
    ordered = _order(components, values, sizes, large)
    numbers = np.zeros(components.number + 1, dtype=np.int64)
    numbers[ordered[:limit]] = np.arange(1, min(limit, ordered.size) + 1)
    small = np.flatnonzero(~large)[1:]
    rows = _describe(score, components.places, values, numbers[components.labels], percentile)
    return Findings(
        case,
        threshold,
        minimum_ml,
        limit,
        rows,
        _left_out(sizes[small], voxel_ml),
        _left_out(sizes[ordered[limit:]], voxel_ml),
        _label_image(score, components.places, numbers[components.labels], len(rows)),
        unit,
    )


def _check_request(threshold: float, minimum_ml: float, limit: int, unit: str) -> None:
    if not math.isfinite(threshold):
        raise ScreenerError(
            f"a threshold of {threshold}{behind(unit)} finds nothing: give a finite number"
        )
    if not (math.isfinite(minimum_ml) and minimum_ml >= 0):
        raise ScreenerError(f"the smallest volume is {minimum_ml} ml: give 0 or more")
    if not 1 <= limit <= _MOST_LABELS:
        raise ScreenerError(f"{limit} findings cannot be listed: ask for 1 to {_MOST_LABELS}")


def _check_geometry(case: str, score: sitk.Image, body: sitk.Image) -> None:
    same = score.GetSize() == body.GetSize() and all(
        np.allclose(getattr(score, name)(), getattr(body, name)(), rtol=0, atol=1e-3)
        for name in ("GetSpacing", "GetOrigin", "GetDirection")
    )
    if not same:
        raise CaseError(
            case,
            f"anomaly map {score.GetSize()} and body mask {body.GetSize()} do not lie on the same "
            "voxels: predict both again (--overwrite)",
        )


def _order(
    components: Components,
    values: NDArray[np.floating],
    sizes: NDArray[np.integer],
    kept: NDArray[np.bool_],
) -> NDArray[np.intp]:
    """Kept components by falling peak, then by falling volume, then as they come in the scan."""
    peaks = np.full(components.number + 1, -np.inf)
    np.maximum.at(peaks, components.labels, values)
    candidates = np.flatnonzero(kept)
    return candidates[np.lexsort((candidates, -sizes[candidates], -peaks[candidates]))]


def _left_out(sizes: NDArray[np.integer], voxel_ml: float) -> LeftOut:
    return LeftOut(int(sizes.size), float(sizes.sum() * voxel_ml))


def _describe(
    score: sitk.Image,
    places: NDArray[np.intp],
    values: NDArray[np.floating],
    numbers: NDArray[np.integer],
    percentile: Percentile | None,
) -> tuple[Finding, ...]:
    """Rows of all voxels with a number above 0, `places`, `values` and `numbers` each `(n,)`."""
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers[order], minlength=1))
    groups = np.split(order, ends[:-1])[1:] if order.size else []
    return tuple(
        _finding(number, score, places[group], values[group], percentile)
        for number, group in enumerate(groups, start=1)
    )


def _finding(
    number: int,
    score: sitk.Image,
    places: NDArray[np.intp],
    values: NDArray[np.floating],
    percentile: Percentile | None,
) -> Finding:
    z, y, x = np.unravel_index(places, score.GetSize()[::-1])
    voxels = np.stack([x, y, z], axis=1)
    centre = voxels.mean(axis=0)
    # Axes are at right angles, so distances in mm need no direction.
    distances = np.linalg.norm((voxels - centre) * score.GetSpacing(), axis=1)
    highest = int(np.argmax(values))
    peak = float(values[highest])
    return Finding(
        number=number,
        voxels=int(places.size),
        volume_ml=places.size * math.prod(score.GetSpacing()) / 1000,
        peak_score=peak,
        mean_score=float(values.mean(dtype=np.float64)),
        percentile=percentile(peak) if percentile else None,
        centre_mm=_point(score, centre),
        centre_voxel=_voxel(voxels[int(np.argmin(distances))]),
        peak_mm=_point(score, voxels[highest]),
        peak_voxel=_voxel(voxels[highest]),
        first_voxel=_voxel(voxels.min(axis=0)),
        last_voxel=_voxel(voxels.max(axis=0)),
    )


def _voxel(index: NDArray[np.integer]) -> Voxel:
    x, y, z = (int(i) for i in index)
    return x, y, z


def _point(image: sitk.Image, index: NDArray[np.number]) -> Point:
    x, y, z = image.TransformContinuousIndexToPhysicalPoint([float(i) for i in index])
    return x, y, z


def _label_image(
    score: sitk.Image, places: NDArray[np.intp], numbers: NDArray[np.integer], highest: int
) -> sitk.Image:
    labels = np.zeros(score.GetSize()[::-1], np.uint8 if highest <= 255 else np.uint16)
    labels.reshape(-1)[places] = numbers
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(score)
    return image
