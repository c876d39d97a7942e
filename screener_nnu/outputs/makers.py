"""Makes findings, DICOM objects and pages of a scan and its map."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from screener_nnu.dicom_output import write_dicom_seg, write_parametric_map
from screener_nnu.findings import Findings, write_findings
from screener_nnu.outputs.extras import MappedCase
from screener_nnu.score_units import NATS
from screener_nnu.viewer.folder import ViewOptions, write_case
from screener_nnu.viewer.grid import image_of
from screener_nnu.viewer.magnetic import as_shown


def list_findings(of: MappedCase) -> Findings:
    """Writes `<case>_findings.*`."""
    request = of.request
    assert request.threshold is not None
    return write_findings(
        of.case,
        of.result.score,
        of.result.body,
        request.threshold,
        of.folder,
        request.percentile,
        request.minimum_ml,
        request.limit,
        request.unit,
    )


def make_dicom(of: MappedCase) -> None:
    """Writes a DICOM map and, with findings, a DICOM SEG of a scan that came as DICOM."""
    source, score, unit = of.raw.source, of.result.score, of.request.unit
    if source is None:
        return
    headers = of.attempt("DICOM objects", lambda: list(source.headers()))
    if headers is None:
        return
    map_file, seg_file = of.path("_map.dcm"), of.path("_findings.dcm")
    of.attempt("DICOM map", lambda: write_parametric_map(score, headers, map_file, unit=unit))
    if (findings := of.findings) is not None:
        of.attempt("DICOM SEG", lambda: write_dicom_seg(findings, headers, seg_file))


def make_page(of: MappedCase) -> dict[str, Any]:
    """Writes a page and its picture; gives its row of the index, see `extras.page_rows`."""
    request, result = of.request, of.result
    options = ViewOptions(
        request.threshold, request.percentile, request.model_name, unit=request.unit
    )
    image, page = image_of(as_shown(of.raw)), of.path(".html")
    row = write_case(of.case, image, result.score, result.body, page, options, of.findings)
    values = {**asdict(row), "page": page.name}
    # Nats go without saying, as in earlier versions.
    return {name: value for name, value in values.items() if (name, value) != ("unit", NATS)}
