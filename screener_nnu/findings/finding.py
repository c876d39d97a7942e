"""What is known of one finding, and of all findings of a scan."""

from __future__ import annotations

from dataclasses import dataclass

import SimpleITK as sitk  # noqa: N813

from screener_nnu.score_units import NATS

Voxel = tuple[int, int, int]
Point = tuple[float, float, float]


@dataclass(frozen=True)
class Finding:
    """One connected place above the threshold.

    Voxel indices have SimpleITK's order (x, y, z) and start at 0; points are in mm, in DICOM's
    patient coordinates (LPS: to the left, to the back, to the head).

    Attributes:
        number: 1 for the highest peak; also the label in the image of the findings.
        voxels: how many voxels it has.
        volume_ml: their volume.
        peak_score: highest score in it (in the unit of the map).
        mean_score: mean score of its voxels (in the same unit).
        percentile: of the peak among normal scans, 0 to 100; None without a calibration.
        centre_mm: its centre of mass, each voxel weighing the same; it may lie outside the finding.
        centre_voxel: the voxel of the finding that is nearest to the centre of mass.
        peak_mm: centre of the voxel with the highest score.
        peak_voxel: that voxel.
        first_voxel: lowest index per axis of the bounding box.
        last_voxel: highest index per axis of the bounding box, still inside.
    """

    number: int
    voxels: int
    volume_ml: float
    peak_score: float
    mean_score: float
    percentile: float | None
    centre_mm: Point
    centre_voxel: Voxel
    peak_mm: Point
    peak_voxel: Voxel
    first_voxel: Voxel
    last_voxel: Voxel


@dataclass(frozen=True)
class LeftOut:
    """Places above the threshold that are no rows of the table.

    Attributes:
        count: how many places.
        volume_ml: their volume together.
    """

    count: int
    volume_ml: float


@dataclass(frozen=True)
class Findings:
    """All findings of a scan.

    Attributes:
        case: name of the scan.
        threshold: voxels of the body above it are candidates (in `unit`).
        minimum_ml: smallest volume of a finding.
        limit: most findings that are listed.
        rows: the findings, the highest peak first.
        too_small: places below the smallest volume.
        beyond_limit: places that are large enough, but come after the last row.
        image: labels in the geometry of the scan, 0 where no finding is; uint8 or uint16.
        unit: of the scores, `none` where they have none.
    """

    case: str
    threshold: float
    minimum_ml: float
    limit: int
    rows: tuple[Finding, ...]
    too_small: LeftOut
    beyond_limit: LeftOut
    image: sitk.Image
    unit: str = NATS
