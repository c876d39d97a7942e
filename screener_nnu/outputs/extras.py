"""Makes of a scan and its map what was asked for; what fails is noted and costs nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom_output import write_dicom_seg, write_parametric_map
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.findings import Findings, write_findings
from screener_nnu.inference.predict import AnomalyMap
from screener_nnu.outputs.request import OutputRequest
from screener_nnu.plans import write_json
from screener_nnu.preprocessing.reading import RawImage
from screener_nnu.viewer.folder import ViewOptions, write_case
from screener_nnu.viewer.grid import image_of
from screener_nnu.viewer.index import CaseRow, page_name

if TYPE_CHECKING:
    from screener_nnu.dicom.volume import SeriesSource

logger = logging.getLogger(__name__)
Made = TypeVar("Made")


class CaseExtras:
    """Writes the extras of each case, and `<case>.json`, which says what there is.

    Args:
        folder: of the maps.
        request: what is asked for.

    Attributes:
        failures: by case, why something of it could not be made.
    """

    def __init__(self, folder: Path, request: OutputRequest) -> None:
        """Keeps both; writes nothing yet."""
        self.folder, self.request = folder, request
        self.failures: dict[str, str] = {}

    def current(self, case: str) -> bool:
        """Whether an earlier run was asked for the same, and made all of it."""
        record = read_record(self.folder, case)
        return record.get("request") == self.request.to_dict() and not record.get("failed")

    def write(self, case: str, raw: RawImage, result: AnomalyMap) -> None:
        """Findings, DICOM objects, page, and last the record."""
        request, attempts = self.request, _Attempts(case)
        findings: Findings | None = None
        record: dict[str, Any] = {"case": case, "request": request.to_dict()}
        if request.findings:
            findings = attempts.make("findings", lambda: self._findings(case, result))
        if request.dicom and raw.source is not None:
            self._dicom(case, raw.source, result, findings, attempts)
        if request.page:
            row = attempts.make("page", lambda: self._page(case, raw, result, findings))
            record["page"] = None if row is None else {**asdict(row), "page": row.page.name}
        summary = attempts.make("summary", lambda: self._summary(result, findings)) or {}
        if attempts.failed:
            self.failures[case] = "; ".join(attempts.failed)
        record = {**record, **summary, "failed": attempts.failed}
        attempts.make("record", lambda: write_json(self.folder / f"{case}.json", record))

    def _dicom(
        self,
        case: str,
        source: SeriesSource,
        result: AnomalyMap,
        findings: Findings | None,
        attempts: _Attempts,
    ) -> None:
        headers = attempts.make("DICOM objects", lambda: list(source.headers()))
        if headers is None:
            return
        map_file, seg_file = (self.folder / f"{case}_{what}.dcm" for what in ("map", "findings"))
        score = result.score
        attempts.make("DICOM map", lambda: write_parametric_map(score, headers, map_file))
        if findings is not None:
            attempts.make("DICOM SEG", lambda: write_dicom_seg(findings, headers, seg_file))

    def _findings(self, case: str, result: AnomalyMap) -> Findings:
        request = self.request
        assert request.threshold is not None
        return write_findings(
            case,
            result.score,
            result.body,
            request.threshold,
            self.folder,
            request.percentile if request.calibration else None,
            request.minimum_ml,
            request.limit,
        )

    def _page(
        self, case: str, raw: RawImage, result: AnomalyMap, findings: Findings | None
    ) -> CaseRow:
        request = self.request
        options = ViewOptions(
            request.threshold,
            request.percentile if request.calibration else None,
            request.model_name,
        )
        page = self.folder / page_name(case)
        image = image_of(raw)
        return write_case(case, image, result.score, result.body, page, options, findings)

    def _summary(self, result: AnomalyMap, findings: Findings | None) -> dict[str, Any]:
        """Figures of the scan as a whole."""
        inside = sitk.GetArrayViewFromImage(result.body) != 0
        scores = sitk.GetArrayViewFromImage(result.score)[inside]
        values: dict[str, Any] = {"peak_score": float(scores.max()) if scores.size else None}
        if self.request.calibration is not None and scores.size:
            score = self.request.calibration.case_score(scores)
            values["case_score"] = score.value
            values["case_percentile"] = score.percentile
        if findings is not None:
            rows = findings.rows
            values["findings"] = len(rows)
            values["findings_not_listed"] = findings.beyond_limit.count
            values["findings_ml"] = sum(row.volume_ml for row in rows)
        return values


class _Attempts:
    """Makes things of a case one by one; what fails is noted in `failed`, and logged."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.failed: list[str] = []

    def make(self, what: str, make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except Exception as error:
            # What the libraries of pages and DICOM raise is up to them; the other scans go on.
            reason = error.reason if isinstance(error, CaseError) else str(error)
            self.failed.append(f"no {what}: {reason}")
            expected = isinstance(error, ScreenerError)
            logger.warning("%s: no %s: %s", self.case, what, reason, exc_info=not expected)
            return None


def page_rows(folder: Path, cases: Iterable[str]) -> list[CaseRow]:
    """Rows of an index, of all cases that this run or an earlier one has made a page of."""
    pages = [read_record(folder, case).get("page") for case in cases]
    return [CaseRow(**{**page, "page": folder / page["page"]}) for page in pages if page]


def read_record(folder: Path, case: str) -> dict[str, Any]:
    """What a run noted of a case; empty where it noted nothing that can be read."""
    try:
        record = json.loads((folder / f"{case}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
