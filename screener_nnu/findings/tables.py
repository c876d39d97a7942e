"""Findings as CSV (one row each) and as JSON (with what was asked for and what was left out).

Both have the same values; `SCHEMA_VERSION` rises when a name goes or changes its meaning. Those of
a picture have an area in pixels and places in pixels (x, y) for volumes and places in mm.
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
from screener_nnu.least_volume import PIXEL_ML
from screener_nnu.map_kind import PICTURES
from screener_nnu.plans import write_json
from screener_nnu.preprocessing.image_files import kind_of_map

SCHEMA_VERSION = 1
_AXES = "xyz"
# More digits than a scan can carry: micrometres and nanolitres.
_MM, _ML, _SCORE = 3, 6, 4

_VECTORS = ("centre_mm", "centre_voxel", "peak_mm", "peak_voxel", "first_voxel", "last_voxel")
_SCORES = ("peak_score", "mean_score", "percentile")
_NUMBERS = ("number", "voxels", "volume_ml", *_SCORES)
COLUMNS = (*_NUMBERS, *(f"{name}_{axis}" for name in _VECTORS for axis in _AXES))
_PIXELS = ("centre_pixel", "peak_pixel", "first_pixel", "last_pixel")
_PICTURE_NUMBERS = ("number", "area_px", *_SCORES)
PICTURE_COLUMNS = (*_PICTURE_NUMBERS, *(f"{name}_{axis}" for name in _PIXELS for axis in "xy"))


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


def picture_values(finding: Finding) -> dict[str, Any]:
    """The same of a finding in a picture: pixels in place of voxels, ml and mm."""
    values = finding_values(finding)
    numbers = {name: values[name] for name in ("number", *_SCORES)}
    places = {name: values[name.replace("pixel", "voxel")][:2] for name in _PIXELS}
    return {"number": finding.number, "area_px": finding.voxels, **numbers, **places}


def findings_values(findings: Findings) -> dict[str, Any]:
    """All of a scan but the image, ready for JSON."""
    picture = _is_picture(findings)
    places = "mm in patient coordinates (LPS); voxel indices (x, y, z) from 0"
    least = {"minimum_ml": findings.minimum_ml}
    if picture:
        places = "pixel indices (x, y) from 0, to the right and down"
        least = {"minimum_px": _pixels(findings.minimum_ml)}
    return {
        "schema": "screener_nnu.findings",
        "schema_version": SCHEMA_VERSION,
        "software": f"screener_nnu {__version__}",
        "case": findings.case,
        "coordinates": places,
        "score_unit": findings.unit,
        "threshold": findings.threshold,
        **least,
        "connectivity": 8 if picture else 26,
        "limit": findings.limit,
        "count": len(findings.rows),
        "too_small": _left_out(findings.too_small, picture),
        "beyond_limit": _left_out(findings.beyond_limit, picture),
        "findings": [(picture_values if picture else finding_values)(r) for r in findings.rows],
    }


def shown_size(findings: Findings, volume_ml: float) -> str:
    """A volume, or the area in a picture that it stands for, with its unit."""
    return f"{_pixels(volume_ml)} px" if _is_picture(findings) else f"{volume_ml:.1f} ml"


def write_findings_json(findings: Findings, path: Path) -> None:
    """Writes everything but the image."""
    write_json(path, findings_values(findings))


def write_findings_csv(findings: Findings, path: Path) -> None:
    """Writes one row per finding; an unknown percentile is an empty field.

    Columns are `COLUMNS`, of a picture `PICTURE_COLUMNS`.
    """
    picture = _is_picture(findings)
    columns, flat = (PICTURE_COLUMNS, _flat_picture) if picture else (COLUMNS, _flat)
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat(row) for row in findings.rows)


def _flat(finding: Finding) -> dict[str, Any]:
    return _spread(finding_values(finding), _NUMBERS, _VECTORS)


def _flat_picture(finding: Finding) -> dict[str, Any]:
    return _spread(picture_values(finding), _PICTURE_NUMBERS, _PIXELS)


def _spread(
    values: dict[str, Any], numbers: tuple[str, ...], vectors: tuple[str, ...]
) -> dict[str, Any]:
    """A row of a table: vectors have a column for each axis."""
    flat = {name: values[name] for name in numbers}
    for name in vectors:
        flat |= {f"{name}_{a}": value for a, value in zip(_AXES, values[name], strict=False)}
    return flat


def _is_picture(findings: Findings) -> bool:
    return kind_of_map(findings.image) == PICTURES


def _pixels(volume_ml: float) -> int:
    return round(volume_ml / PIXEL_ML)


def _left_out(part: LeftOut, picture: bool) -> dict[str, float]:
    if picture:
        return {"count": part.count, "area_px": _pixels(part.volume_ml)}
    return {"count": part.count, "volume_ml": round(part.volume_ml, _ML)}


def _finite(value: float | None, digits: int) -> float | None:
    """Rounded; JSON has no word for infinite or NaN."""
    return round(float(value), digits) if value is not None and math.isfinite(value) else None
