"""Findings as a DICOM Segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from screener_nnu import __version__
from screener_nnu.dicom_output.alignment import align_to_source
from screener_nnu.dicom_output.common import LONG_STRING, NAME, derive, quiet, save
from screener_nnu.dicom_output.dependency import load_highdicom
from screener_nnu.dicom_output.source import SourceFile, read_source
from screener_nnu.findings.finding import Finding, Findings
from screener_nnu.score_units import NATS, behind

if TYPE_CHECKING:
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

MOST_SEGMENTS = 50
SERIES_NUMBER = 9001
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))


def write_dicom_seg(
    findings: Findings,
    source_files: Sequence[SourceFile],
    path: Path,
    most_segments: int = MOST_SEGMENTS,
    series_number: int = SERIES_NUMBER,
) -> None:
    """Writes one binary segment per finding, with the number of the finding.

    With more findings than `most_segments` there is one segment of all of them. Without any there
    is one segment without voxels, on all slices: an object that says that nothing was found is
    something else than no object, which may mean that nobody looked.

    Args:
        findings: what was found, with its label image.
        source_files: all slices of the source series, paths or datasets, in any order.
        path: file to write.
        most_segments: findings that get a segment of their own.
        series_number: of the new series in its study.

    Raises:
        ScreenerError: highdicom is missing, the series is not the one that the map was made of, or
            the file cannot be written.
    """
    hd = load_highdicom()
    with quiet():
        source = read_source(source_files)
        labels = align_to_source(findings.image, source)
        together = len(findings.rows) > most_segments
        if together:
            labels = (labels != 0).astype(np.uint8)
        dataset = derive(
            hd.seg.Segmentation,
            source,
            series_number,
            series_description="Anomaly findings",
            pixel_array=labels,
            segmentation_type="BINARY",
            segment_descriptions=_segments(findings, together),
            content_label="ANOMALIES",
            content_description=_description(findings),
            # Where nothing was found at all, highdicom keeps the empty frames.
            omit_empty_frames=True,
        )
        save(dataset, path)


def _segments(findings: Findings, together: bool) -> list[SegmentDescription]:
    threshold = _threshold(findings)
    if not findings.rows:
        return [_segment(1, f"No finding above {threshold}", findings)]
    if together:
        return [_segment(1, f"{len(findings.rows)} findings above {threshold}", findings)]
    return [_segment(row.number, _label(row, findings.unit), findings) for row in findings.rows]


def _threshold(findings: Findings) -> str:
    return f"{findings.threshold:g}{behind(findings.unit)}"


def _label(row: Finding, unit: str) -> str:
    percentile = "" if row.percentile is None else f", percentile {row.percentile:.4g}"
    return f"Finding {row.number} (peak {row.peak_score:.2f}{behind(unit)}{percentile})"


def _segment(number: int, label: str, findings: Findings) -> SegmentDescription:
    hd = load_highdicom()
    from pydicom.sr.codedict import codes

    algorithm: Any = hd.AlgorithmIdentificationSequence(
        name=NAME,
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        parameters=_parameters(findings),
    )
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label[:LONG_STRING],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        display_color=_colour(number),
    )


def _parameters(findings: Findings) -> dict[str, str]:
    name, threshold = "threshold", _threshold(findings)
    if findings.unit == NATS:
        # The name of every version.
        name, threshold = "threshold_nats", f"{findings.threshold:g}"
    return {name: threshold, "minimum_ml": f"{findings.minimum_ml:g}"}


def _colour(number: int) -> CIELabColor:
    """Neighbouring numbers get colours far apart, all equally bright."""
    angle = number * _GOLDEN_ANGLE
    return load_highdicom().color.CIELabColor(65.0, 60 * math.cos(angle), 60 * math.sin(angle))


def _description(findings: Findings) -> str:
    left_out = findings.beyond_limit.count
    more = f", {left_out} more not listed" if left_out else ""
    text = f"{len(findings.rows)} findings above {_threshold(findings)}{more}; research only"
    return text[:LONG_STRING]
