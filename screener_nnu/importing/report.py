"""One row a series: taken or skipped, and why; as a line, in a table and in JSON."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from screener_nnu.csv_files import write_csv
from screener_nnu.errors import ScreenerError
from screener_nnu.ownership import foreign_files
from screener_nnu.plans import write_json

logger = logging.getLogger(__name__)

REPORT = "import.json"
TABLE = "import.csv"
TAKEN, KEPT, SKIPPED, PLANNED = "taken", "kept", "skipped", "would be taken"


@dataclass(frozen=True)
class Row:
    """What became of one series.

    Attributes:
        series: pseudonym, a hash of the Series Instance UID, and the number of a part.
        status: `taken`, `kept` (an earlier run took it), `skipped`, or `would be taken`.
        case: name of the case; empty when skipped.
        reason: why it was skipped, or what is worth knowing.
        slices: number of images; of positions where it was taken.
        size: voxels, x, y, z.
        spacing: voxel size (mm), x, y, z.
        patient_id: only if names are to be kept, as the following.
        study_date: from the header.
        description: of the series.
        folder: folder or zip, relative to what was given.
    """

    series: str
    status: str
    case: str = ""
    reason: str = ""
    slices: int = 0
    size: str = ""
    spacing: str = ""
    patient_id: str = ""
    study_date: str = ""
    description: str = ""
    folder: str = ""

    def line(self) -> str:
        """The row for people."""
        names = " | ".join(
            text
            for text in (self.patient_id, self.study_date, self.description, self.folder)
            if text
        )
        geometry = f"{self.size} voxels of {self.spacing} mm" if self.size else ""
        images = f"{self.slices} image{'s' * (self.slices != 1)}"
        what = "; ".join(filter(None, (geometry or images, self.reason)))
        return f"{self.status} {self.case or self.series}{f' [{names}]' if names else ''}: {what}"


def read_rows(folder: Path) -> dict[str, Row]:
    """Rows of earlier runs by pseudonym.

    Raises:
        ScreenerError: the report is not ours.
    """
    path = folder / REPORT
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["series"]
        return {row["series"]: Row(**row) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise ScreenerError(
            f"{path} is not that of an import ({error!r}): delete it, or choose another -d"
        ) from error


def write_rows(folder: Path, rows: dict[str, Row], files: dict[str, Any]) -> None:
    """Writes report and table; a status `kept` is stored as `taken`, which it was.

    Args:
        folder: of the dataset.
        rows: of this run and of earlier ones.
        files: numbers of files that belong to no series.
    """
    values = [
        asdict(rows[key]) | {"status": TAKEN if rows[key].status == KEPT else rows[key].status}
        for key in sorted(rows)
    ]
    write_json(folder / REPORT, {"files_without_series": files, "series": values})
    write_csv(folder / TABLE, [f.name for f in fields(Row)], values)


def write_description(folder: Path, description: dict[str, Any]) -> None:
    """Writes `dataset.json`, unless one that is not ours is there, which is said."""
    path = folder / "dataset.json"
    if foreign_files([path]):
        logger.warning("%s is not ours, or changed since we wrote it: it stays as it is", path)
    elif description["numTraining"]:
        write_json(path, description)
