"""Findings as CSV (one row each) and as JSON (with what was asked for and what was left out).

Both have the same values; `SCHEMA_VERSION` rises when a name goes or changes its meaning.
"""

from __future__ import annotations

import csv
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from screener_nnu import __version__
from screener_nnu.files import replacing
from screener_nnu.findings.finding import Finding, Findings, LeftOut
from screener_nnu.plans import write_json

SCHEMA_VERSION = 1
_AXES = "xyz"
# More digits than a scan can carry: micrometres and nanolitres.
_MM, _ML, _SCORE = 3, 6, 4

_VECTORS = ("centre_mm", "centre_voxel", "peak_mm", "peak_voxel", "first_voxel", "last_voxel")
_NUMBERS = ("number", "voxels", "volume_ml", "peak_score", "mean_score", "percentile")
COLUMNS = (*_NUMBERS, *(f"{name}_{axis}" for name in _VECTORS for axis in _AXES))


def finding_values(finding: Finding) -> dict[str, Any]:
    """Plain values of one finding, rounded, ready for JSON."""
    values = asdict(finding)
    values["volume_ml"] = round(finding.volume_ml, _ML)
    for name in ("peak_score", "mean_score", "percentile"):
        values[name] = _finite(values[name], _SCORE)
    for name in _VECTORS:
        digits = _MM if name.endswith("_mm") else None
        values[name] = [round(number, digits) for number in values[name]]
    return values


def findings_values(findings: Findings) -> dict[str, Any]:
    """All of a scan but the image, ready for JSON."""
    return {
        "schema": "screener_nnu.findings",
        "schema_version": SCHEMA_VERSION,
        "software": f"screener_nnu {__version__}",
        "case": findings.case,
        "coordinates": "mm in patient coordinates (LPS); voxel indices (x, y, z) from 0",
        "score_unit": findings.unit,
        "threshold": findings.threshold,
        "minimum_ml": findings.minimum_ml,
        "connectivity": 26,
        "limit": findings.limit,
        "count": len(findings.rows),
        "too_small": _left_out(findings.too_small),
        "beyond_limit": _left_out(findings.beyond_limit),
        "findings": [finding_values(row) for row in findings.rows],
    }


def write_findings_json(findings: Findings, path: Path) -> None:
    """Writes everything but the image."""
    write_json(path, findings_values(findings))


def write_findings_csv(findings: Findings, path: Path) -> None:
    """Writes one row per finding under `COLUMNS`; an unknown percentile is an empty field."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_flat(finding_values(row)) for row in findings.rows)


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    flat = {name: values[name] for name in _NUMBERS}
    for name in _VECTORS:
        flat |= {f"{name}_{a}": value for a, value in zip(_AXES, values[name], strict=True)}
    return flat


def _left_out(part: LeftOut) -> dict[str, float]:
    return {"count": part.count, "volume_ml": round(part.volume_ml, _ML)}


def _finite(value: float | None, digits: int) -> float | None:
    """Rounded; JSON has no word for infinite or NaN."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None
