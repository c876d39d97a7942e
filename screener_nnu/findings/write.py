"""The three files of a scan's findings."""

from __future__ import annotations

import logging
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from screener_nnu.files import remove
from screener_nnu.findings.find import LIMIT, Percentile, find_findings
from screener_nnu.findings.finding import Findings
from screener_nnu.findings.tables import shown_size, write_findings_csv, write_findings_json
from screener_nnu.least_volume import MINIMUM_ML
from screener_nnu.preprocessing.image_files import kind_of_map, write_image
from screener_nnu.score_units import NATS

logger = logging.getLogger(__name__)


def write_findings(
    case: str,
    score: sitk.Image,
    body: sitk.Image,
    threshold: float,
    output: Path,
    percentile: Percentile | None = None,
    minimum_ml: float = MINIMUM_ML,
    limit: int = LIMIT,
    unit: str = NATS,
) -> Findings:
    """Finds and writes `<case>_findings.nii.gz`, `.csv` and `.json` into a folder.

    Those of a picture are numbered in `<case>_findings.png`, and their sizes are in pixels.
    Each file appears whole or not at all; the JSON comes last, so where it is, all three are.

    Args:
        case: name of the scan.
        score: anomaly map (in `unit`).
        body: mask of the body, in the same geometry.
        threshold: only voxels strictly above it belong to a finding (in `unit`).
        output: folder.
        percentile: place of a score among normal scans, 0 to 100, or None where it is unknown.
        minimum_ml: smallest volume of a finding.
        limit: most findings that are listed; the others are counted in the JSON and in the log.
        unit: of the scores, `none` where they have none.

    Raises:
        CaseError: map and mask differ in geometry.
        ScreenerError: threshold, volume or limit make no sense, or a file cannot be written.
    """
    findings = find_findings(case, score, body, threshold, percentile, minimum_ml, limit, unit)
    json_path = output / f"{case}_findings.json"
    remove(json_path)
    labels = kind_of_map(findings.image).labels
    write_image(findings.image, output / f"{case}_findings{labels}")
    write_findings_csv(findings, output / f"{case}_findings.csv")
    write_findings_json(findings, json_path)
    if findings.beyond_limit.count:
        logger.warning(
            "%s: %d findings are listed, %d more (%s) with lower peaks are only counted; "
            "raise the threshold or the limit",
            case,
            len(findings.rows),
            findings.beyond_limit.count,
            shown_size(findings, findings.beyond_limit.volume_ml),
        )
    return findings
