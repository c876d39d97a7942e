"""Makes of a scan and its map what was asked for; what fails is noted and costs nothing else."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import SimpleITK as sitk  # noqa: N813

from screener_nnu.case_score import CASE_TABLE, flag
from screener_nnu.errors import CaseError, ScreenerError
from screener_nnu.files import OutputError, remove
from screener_nnu.findings import Findings
from screener_nnu.inference.map_folder import AnomalyMap
from screener_nnu.map_kind import PICTURES, SCANS
from screener_nnu.outputs.products import FINDINGS, PRODUCTS, product_endings, product_file
from screener_nnu.outputs.request import OutputRequest
from screener_nnu.outputs.scan_vectors import packed
from screener_nnu.ownership import OwnedFolder
from screener_nnu.plans import write_json
from screener_nnu.preprocessing.reading import RawImage
from screener_nnu.smoothed_score import smoothed_score
from screener_nnu.stages import load_object
from screener_nnu.viewer.index import INDEX, CaseRow

logger = logging.getLogger(__name__)
Made = TypeVar("Made")
# What a record holds of a scan before there is a map, and the threshold of its mask.
_OF_SCAN = ("scan", "mask", "vector", "vector_scores", "image_scores")


@dataclass
class MappedCase:
    """A scan and its map, of which products are made.

    Attributes:
        case: name of the scan.
        raw: the scan.
        result: its map and body mask.
        request: what is asked for.
        folder: of the maps.
        findings: where they are asked for and could be listed.
        failed: what could not be made, and why.
    """

    case: str
    raw: RawImage
    result: AnomalyMap
    request: OutputRequest
    folder: Path
    findings: Findings | None = None
    failed: list[str] = field(default_factory=list)

    def path(self, ending: str) -> Path:
        """The file `<case><ending>`."""
        return product_file(self.folder, self.case, ending)

    def attempt(self, what: str, make: Callable[[], Made]) -> Made | None:
        """Makes a product or a part of one; what fails is noted and logged, and gives None."""
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
        self.bytes_per_voxel = sum(PRODUCTS[name].bytes_per_voxel for name in request.asked)
        self.failures: dict[str, str] = {}
        self.not_dicom: list[str] = []
        self._base = request.base()  # which hashes the calibration

    def files(self, case: str) -> list[Path]:
        """Every file that may be made of a case, the record first, which vouches for the rest."""
        kind = self.request.kind
        endings = (".json", f"_mask{kind.labels}", *product_endings(kind))
        return [product_file(self.folder, case, ending) for ending in endings]

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

    def begin(self, case: str, identity: str, result: AnomalyMap) -> None:
        """Writes the record of a map that is about to be written: a kill leaves none without."""
        values: dict[str, Any] = {"scan": identity, "mask": self.request.threshold}
        if result.vector is not None:
            scores = dict(result.vector_scores)
            values |= {"vector": packed(result.vector), "vector_scores": scores}
        if result.image_scores:
            values["image_scores"] = dict(result.image_scores)
        self._note(case, values)

    def has_mask(self, case: str) -> bool:
        """Whether the mask that is there was made at the threshold that is asked for."""
        mask = product_file(self.folder, case, f"_mask{self.request.kind.labels}")
        known = read_record(self.folder, case).get("mask")
        return known == self.request.threshold and mask.is_file()

    def note_mask(self, case: str) -> None:
        """Notes that the mask was made anew."""
        record = read_record(self.folder, case)
        self._note(case, {**record, "mask": self.request.threshold})

    def _note(self, case: str, values: dict[str, Any]) -> None:
        head = {"case": case, "model": self.request.model}
        write_json(self.folder / f"{case}.json", {**head, **values})

    def current(self, case: str) -> bool:
        """Whether earlier runs have made all of it."""
        record = read_record(self.folder, case)
        if record.get("base") != self._base:
            return False
        if self._lost(case, record):
            return False
        made = record.get("products", {})
        return all(made.get(name) == values for name, values in self.request.products().items())

    def _lost(self, case: str, record: dict[str, Any]) -> set[str]:
        """Products with files that were made and are not there."""
        files = [self.folder / name for name in record.get("files", [])]
        gone = {path for path in files if not path.is_file()}
        ending = self.request.kind.ending
        return {
            name
            for name, product in PRODUCTS.items()
            if any(product_file(self.folder, case, ending(one)) in gone for one in product.endings)
        }

    def forget(self, case: str) -> None:
        """Removes all of it: the map that it was made of is about to be replaced."""
        for path in self.files(case):
            remove(path)

    def write(self, case: str, raw: RawImage, result: AnomalyMap) -> None:
        """Makes what earlier runs have not made; what there is then is recorded last."""
        request, of = self.request, MappedCase(case, raw, result, self.request, self.folder)
        earlier = read_record(self.folder, case)
        scan = {"scan": "", **{key: earlier[key] for key in _OF_SCAN if key in earlier}}
        self._note(case, scan)
        if earlier.get("base") != self._base:
            earlier = scan
        asked, made = request.products(), dict(earlier.get("products", {}))
        for name in self._lost(case, earlier):
            made.pop(name, None)
        record = {**earlier, "base": self._base}
        if FINDINGS in asked and made.get(FINDINGS) != asked[FINDINGS]:
            self._forget_listed(case, made, record)
        if "dicom" in asked and raw.source is None:
            self.not_dicom.append(case)
        # Findings are listed again for what shows them.
        new = [name for name in asked if name == FINDINGS or made.get(name) != asked[name]]
        done = {name: asked[name] for name in new if _make(name, of, record)}
        if FINDINGS in asked and of.findings is None:
            done = {}  # What shows findings lacks them, and is made again.
        summary = of.attempt("summary", lambda: self._summary(result, of.findings)) or {}
        if of.failed:
            self.failures[case] = "; ".join(of.failed)
        files = [path.name for path in self.files(case)[2:] if path.is_file()]
        record = {**record, **summary, "products": {**made, **done}, "failed": of.failed}
        record["files"] = files
        of.attempt("record", lambda: self._note(case, record))

    def _forget_listed(self, case: str, made: dict[str, Any], record: dict[str, Any]) -> None:
        """Removes what shows the findings of another threshold; `_findings.*` are replaced."""
        for name, product in PRODUCTS.items():
            whole = product.shows_findings == product.endings
            if whole and made.get(name, [None])[-1] is None:
                continue
            for ending in product.shows_findings:
                remove(product_file(self.folder, case, self.request.kind.ending(ending)))
            if whole:
                del made[name]
                record.pop(name, None)
            elif product.shows_findings and name in made:
                made[name] = [*made[name][:-1], None]

    def _summary(self, result: AnomalyMap, findings: Findings | None) -> dict[str, Any]:
        """Figures of the scan as a whole."""
        inside = sitk.GetArrayViewFromImage(result.body) != 0
        whole = sitk.GetArrayViewFromImage(result.score)
        scores = whole[inside]
        values: dict[str, Any] = {"peak_score": None, "mean_score": None}
        if scores.size:
            values["peak_score"] = float(scores.max())
            values["mean_score"] = float(scores.mean(dtype=np.float64))
        if scores.size and self.request.kind == PICTURES:
            plane = whole.shape[-2:]
            values["smoothed_score"] = smoothed_score(whole.reshape(plane), inside.reshape(plane))
        if self.request.calibration is not None and scores.size:
            score = self.request.calibration.case_score(scores)
            values["case_score"] = score.value
            values["case_percentile"] = score.percentile
            values["flag"] = flag(score.percentile)
        if findings is not None:
            rows = findings.rows
            values["findings"] = len(rows)
            values["findings_not_listed"] = findings.beyond_limit.count
            if self.request.kind == SCANS:
                values["findings_ml"] = sum(row.volume_ml for row in rows)
            else:
                values["findings_px"] = sum(row.voxels for row in rows)
        return values


def _make(name: str, of: MappedCase, record: dict[str, Any]) -> bool:
    """Makes a product, puts what is to be kept of it into the record; whether nothing failed."""
    failed = len(of.failed)
    kept = of.attempt(name, lambda: load_object(PRODUCTS[name].make)(of))
    if name == FINDINGS:
        of.findings = kept
    elif kept is None:
        record.pop(name, None)
    else:
        record[name] = kept
    return len(of.failed) == failed


def adopt_earlier(folder: OwnedFolder) -> None:
    """Takes what versions without a record of files have written into a folder as ours.

    The record of a case vouches for its map and for what it names; the masks of those versions are
    in no record, and stay out of reach.
    """
    if not folder.is_new:
        return
    cases = known_cases(folder.folder, ())
    files = [folder.folder / name for name in (CASE_TABLE, INDEX)] if cases else []
    for case in cases:
        made = read_record(folder.folder, case).get("products", {})
        named = [end for name in made if name in PRODUCTS for end in PRODUCTS[name].endings]
        endings = (".json", ".nii.gz", "_body.nii.gz", *named)
        files += [product_file(folder.folder, case, ending) for ending in endings]
    folder.adopt(files)


def known_cases(folder: Path, cases: Iterable[str]) -> list[str]:
    """These cases, and all others that an earlier run left a record of, by name."""
    found = (path.stem for path in folder.glob("*.json") if path.name[0] != ".")
    records = ((case, read_record(folder, case)) for case in found)
    earlier = (c for c, r in records if r.get("case") == c and isinstance(r.get("model"), str))
    return sorted({*cases, *earlier})


def page_rows(folder: Path, cases: Iterable[str]) -> Iterator[CaseRow]:
    """Rows of an index, of all cases that this run or an earlier one has made a page of."""
    pages = (read_record(folder, case).get("page") for case in cases)
    return (CaseRow(**{**page, "page": folder / page["page"]}) for page in pages if page)


def read_record(folder: Path, case: str) -> dict[str, Any]:
    """What a run noted of a case; empty where it noted nothing that can be read."""
    try:
        record = json.loads((folder / f"{case}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
