"""Anomalies of every kind in one scan of a test set."""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from screener_nnu.errors import CaseError
from screener_nnu.files import replacing
from screener_nnu.ownership import foreign_files, not_ours
from screener_nnu.preprocessing.image_files import write_image
from screener_nnu.preprocessing.reading import Source
from screener_nnu.synthetic.anomalies import Painted, paint_anomalies, place_anomalies
from screener_nnu.synthetic.anomaly_files import InputFrame, read_scan
from screener_nnu.synthetic.anomaly_settings import BlobSettings
from screener_nnu.synthetic.anomaly_tissue import Scan
from screener_nnu.synthetic.placement import BodyPlaces, Placement

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What is to be written.

    Attributes:
        images: path (or DICOM series) of each scan by case name; donors are among them.
        output: folder of the test set.
        seed: first part of every seed.
        kinds: some of `KINDS`.
        settings: number, size and contrast of the anomalies.
    """

    images: dict[str, Source]
    output: Path
    seed: int
    kinds: tuple[str, ...]
    settings: BlobSettings


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case and kind; the record is written last.

    Attributes:
        folder: of the kind.
        case: name.
    """

    folder: Path
    case: str

    @property
    def image(self) -> Path:
        """HU with anomalies."""
        return self.folder / "images" / f"{self.case}_0000.nii.gz"

    @property
    def mask(self) -> Path:
        """One in anomalies."""
        return self.folder / "masks" / f"{self.case}.nii.gz"

    @property
    def record(self) -> Path:
        """Seed, blobs and positions."""
        return self.folder / "placements" / f"{self.case}.json"

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        """All of them."""
        return self.image, self.mask, self.record

    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return all(path.is_file() for path in self.paths)

    @classmethod
    def records(cls, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Case and record of all that is complete in the folder of a kind."""
        for path in sorted(folder.glob("placements/*.json")):
            files = cls(folder, path.stem)
            if files.complete():
                yield files.case, json.loads(path.read_text(encoding="utf-8"))


def synthesize_case(case: str, path: Source, request: Request) -> str:
    """Writes what is missing of a scan.

    Returns:
        Why the scan cannot be used; an empty text when it can.
    """
    wanted = {kind: CaseFiles(request.output / kind, case) for kind in request.kinds}
    missing = {kind: files for kind, files in wanted.items() if not files.complete()}
    done = [files for kind, files in wanted.items() if kind not in missing]
    changed = foreign_files(path for files in done for path in files.paths)
    if changed:
        return not_ours(changed)
    if not missing:
        return ""
    try:
        scan, frame = read_scan(path, case)
        places = BodyPlaces(scan.body, scan.spacing)
        for kind, files in missing.items():
            _write_kind(kind, files, scan, frame, places, request)
    except CaseError as error:
        return error.reason
    return ""


def case_seed(seed: int, case: str, kind: str) -> list[int]:
    """Seed of all draws for a kind of anomaly in a scan, whatever other scans there are."""
    return [seed, zlib.crc32(case.encode()), zlib.crc32(kind.encode())]


def _write_kind(
    kind: str,
    files: CaseFiles,
    scan: Scan,
    frame: InputFrame,
    places: BodyPlaces,
    request: Request,
) -> None:
    """Draws anomalies of one kind and writes them."""
    seed = case_seed(request.seed, files.case, kind)
    rng = np.random.default_rng(seed)
    try:
        placement = place_anomalies(scan, places, kind, rng, request.settings)
    except ValueError as error:
        raise CaseError(files.case, f"{kind}: {error}") from error
    donor_case, donor = files.case, scan
    if kind == "pasted":
        donor_case, donor = _donor(files.case, scan, request)
    painted = paint_anomalies(scan, donor, kind, rng, request.settings, placement)
    write_image(frame.image(painted.image_hu), files.image)
    write_image(frame.image(painted.mask), files.mask)
    record = _record(placement, painted, frame) | {"seed": seed}
    if kind == "pasted":
        record["donor"] = donor_case
    with replacing(files.record) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")


def donor_order(case: str, cases: Iterator[str] | list[str], seed: int) -> list[str]:
    """Other scans in an order of their own for each case; adding one leaves that of the others."""
    others = (other for other in cases if other != case)
    return sorted(others, key=lambda other: zlib.crc32(f"{seed}/{other}/{case}".encode()))


def _donor(case: str, scan: Scan, request: Request) -> tuple[str, Scan]:
    """The first other scan that can be read; the scan itself when there is no other."""
    for other in donor_order(case, list(request.images), request.seed):
        try:
            return other, read_scan(request.images[other], other)[0]
        except CaseError as error:
            logger.info("%s takes tissue from another scan than %s", case, error.case)
    return case, scan


def _record(placement: Placement, painted: Painted, frame: InputFrame) -> dict[str, Any]:
    """What `placement.json` says about one scan, and the histograms of its positions."""
    each = zip(placement.blobs, painted.contrasts, painted.changes, strict=True)
    blobs = [
        {
            "centre_mm": frame.world(blob.centre),
            "radius_mm": round(blob.radius, 2),
            "contrast_hu": round(contrast, 1),
            "change_hu": round(change, 1),
        }
        for blob, contrast, change in each
    ]
    volume = float(painted.mask.sum()) * float(np.prod(frame.spacing)) / 1000
    return {
        "blobs": blobs,
        "volume_ml": round(volume, 3),
        "auroc": placement.auroc,
        "positions": placement.scores.to_dict(),
    }
