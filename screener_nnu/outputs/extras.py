"""Makes of a scan and its map what was asked for; what fails is noted and costs nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom_output import write_dicom_seg, write_parametric_map
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.files import OutputError, remove
from screener_nnu.findings import Findings, write_findings
from screener_nnu.inference.predict import AnomalyMap
from screener_nnu.outputs.request import OutputRequest
from screener_nnu.ownership import OwnedFolder
from screener_nnu.plans import write_json
from screener_nnu.preprocessing.reading import RawImage
from screener_nnu.score_units import NATS
from screener_nnu.viewer.folder import ViewOptions, write_case
from screener_nnu.viewer.grid import image_of
from screener_nnu.viewer.index import INDEX, CaseRow, page_name

if TYPE_CHECKING:
    from screener_nnu.dicom.volume import SeriesSource

logger = logging.getLogger(__name__)
Made = TypeVar("Made")
#: Of all scans of a folder, see `outputs.table`.
TABLE = "cases.csv"
# Of what is made of a map; the record first.
_ENDINGS = (
    ".json",
    "_mask.nii.gz",
    "_findings.json",
    "_findings.csv",
    "_findings.nii.gz",
    "_findings.dcm",
    "_map.dcm",
    ".png",
)
_PRODUCTS = {
    "findings": ("_findings.json", "_findings.csv", "_findings.nii.gz"),
    "dicom": ("_findings.dcm", "_map.dcm"),
    "page": (".png",),
}
# What a record holds of a scan before there is a map.
_OF_SCAN = ("scan", "vector_scores")
# Values of a DICOM map without a DICOM SEG, see `OutputRequest.products`.
_MAP_ALONE = [None]


class CaseExtras:
    """Writes the extras of each case, and `<case>.json`, which says what there is.

    Args:
        folder: of the maps.
        request: what is asked for.

    Attributes:
        bytes_per_voxel: memory that it takes to make all of it.
        failures: by case, why something of it could not be made.
        not_dicom: cases that did not come as DICOM, of which no DICOM objects can be made.
    """

    def __init__(self, folder: Path, request: OutputRequest) -> None:
        """Keeps both; writes nothing yet."""
        self.folder, self.request = folder, request
        self.bytes_per_voxel = request.bytes_per_voxel
        self.failures: dict[str, str] = {}
        self.not_dicom: list[str] = []

    def files(self, case: str) -> list[Path]:
        """Every file that may be made of a case, the record first."""
        names = [*(f"{case}{ending}" for ending in _ENDINGS), page_name(case)]
        return [self.folder / name for name in names]

    def foreign(self, case: str, identity: str) -> str:
        """Why the map that is there does not count: it is another model's or another scan's."""
        record = read_record(self.folder, case)
        reason = ""
        if "model" not in record:
            reason = "nothing says which model made the map that is there"
        elif record["model"] != self.request.model:
            reason = "the map that is there is of another model, or was made with or without --fast"
        # A scan given as a folder has no identity; neither had those of earlier versions.
        elif identity and record.get("scan") not in (None, "", identity):
            reason = "the map that is there is that of another scan of this name"
        return f"{reason}: add --overwrite, or give another -o" if reason else ""

    def begin(self, case: str, identity: str, vector_scores: Mapping[str, float]) -> None:
        """Writes the record of a map that is about to be written: a kill leaves none without."""
        scores = {"vector_scores": dict(vector_scores)} if vector_scores else {}
        self._note(case, {"scan": identity, **scores})

    def _note(self, case: str, values: dict[str, Any]) -> None:
        head = {"case": case, "model": self.request.model}
        write_json(self.folder / f"{case}.json", {**head, **values})

    def current(self, case: str) -> bool:
        """Whether earlier runs have made all of it."""
        record = read_record(self.folder, case)
        if record.get("base") != self.request.base():
            return False
        made = record.get("products", {})
        return all(made.get(name) == values for name, values in self.request.products().items())

    def forget(self, case: str) -> None:
        """Removes all of it; the record first, which vouches for the rest."""
        for path in self.files(case):
            remove(path)

    def write(self, case: str, raw: RawImage, result: AnomalyMap) -> None:
        """Makes what earlier runs have not made; what there is then is recorded last."""
        request, attempts = self.request, _Attempts(case)
        earlier = read_record(self.folder, case)
        scan = {"scan": "", **{key: earlier[key] for key in _OF_SCAN if key in earlier}}
        self._note(case, scan)
        if earlier.get("base") != request.base():
            earlier = scan
        asked, made = request.products(), dict(earlier.get("products", {}))
        record = {**earlier, "base": request.base()}
        if "findings" in asked and made.get("findings") != asked["findings"]:
            self._forget_listed(case, made, record)
        new = {name: values for name, values in asked.items() if made.get(name) != values}
        findings: Findings | None = None
        if request.findings:
            findings = attempts.make("findings", lambda: self._findings(case, result))
        if "dicom" in asked and raw.source is None:
            self.not_dicom.append(case)
        if "dicom" in new and raw.source is not None:
            self._dicom(case, raw.source, result, findings, attempts)
        if "page" in new:
            row = attempts.make("page", lambda: self._page(case, raw, result, findings))
            record["page"] = None if row is None else _page_values(row)
        summary = attempts.make("summary", lambda: self._summary(result, findings)) or {}
        if attempts.failed:
            self.failures[case] = "; ".join(attempts.failed)
        if request.findings and findings is None:
            new = {}  # What shows findings lacks them, and is made again.
        done = {**made, **{k: v for k, v in new.items() if not attempts.lacks(k)}}
        record = {**record, **summary, "products": done, "failed": attempts.failed}
        attempts.make("record", lambda: self._note(case, record))

    def _forget_listed(self, case: str, made: dict[str, Any], record: dict[str, Any]) -> None:
        """Removes what shows the findings of another threshold; `_findings.*` are replaced."""
        remove(self.folder / f"{case}_findings.dcm")
        if "dicom" in made:
            made["dicom"] = _MAP_ALONE
        if made.get("page", _MAP_ALONE)[-1] is not None:
            del made["page"]
            record["page"] = None
            for name in (f"{case}.png", page_name(case)):
                remove(self.folder / name)

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
        score, unit = result.score, self.request.unit
        attempts.make(
            "DICOM map", lambda: write_parametric_map(score, headers, map_file, unit=unit)
        )
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
            request.unit,
        )

    def _page(
        self, case: str, raw: RawImage, result: AnomalyMap, findings: Findings | None
    ) -> CaseRow:
        request = self.request
        options = ViewOptions(
            request.threshold,
            request.percentile if request.calibration else None,
            request.model_name,
            unit=request.unit,
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


def _page_values(row: CaseRow) -> dict[str, Any]:
    """A row for the record, see `page_rows`; nats go without saying, as in earlier versions."""
    values = {**asdict(row), "page": row.page.name}
    return {name: value for name, value in values.items() if (name, value) != ("unit", NATS)}


class _Attempts:
    """Makes things of a case one by one; what fails is noted in `failed`, and logged."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.failed: list[str] = []

    def lacks(self, product: str) -> bool:
        """Whether something of `findings`, `dicom` or `page` is missing."""
        return any(text.lower().startswith(f"no {product}") for text in self.failed)

    def make(self, what: str, make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except OutputError:
            raise
        except Exception as error:
            # What the libraries of pages and DICOM raise is up to them; the other scans go on.
            reason = error.reason if isinstance(error, CaseError) else str(error)
            self.failed.append(f"no {what}: {reason}")
            expected = isinstance(error, ScreenerError)
            logger.warning("%s: no %s: %s", self.case, what, reason, exc_info=not expected)
            return None


def adopt_earlier(folder: OwnedFolder) -> None:
    """Takes what versions without a record of files have written into a folder as ours.

    The record of a case vouches for its map and for what it names; the masks of those versions are
    in no record, and stay out of reach.
    """
    if not folder.is_new:
        return
    cases = [path.stem for path in folder.folder.glob("*.json") if path.name[0] != "."]
    cases = [case for case in cases if _is_record(read_record(folder.folder, case), case)]
    endings = [".json", ".nii.gz", "_body.nii.gz"]
    files = [f"{case}{ending}" for case in cases for ending in endings]
    for case in cases:
        made = read_record(folder.folder, case).get("products", {})
        files += [f"{case}{end}" for kind in made for end in _PRODUCTS.get(kind, ())]
        files += [page_name(case)] if "page" in made else []
    folder.adopt(folder.folder / name for name in (*files, *((TABLE, INDEX) if cases else ())))


def _is_record(record: dict[str, Any], case: str) -> bool:
    return record.get("case") == case and isinstance(record.get("model"), str)


def known_cases(folder: Path, cases: Iterable[str]) -> list[str]:
    """These cases, and all others that an earlier run left a record of, by name."""
    found = {path.stem for path in folder.glob("*.json") if not path.name.startswith(".")}
    earlier = {case for case in found if read_record(folder, case).get("case") == case}
    return sorted({*cases, *earlier})


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
