"""A table of all scans of a folder of maps: where to look first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from screener_nnu.case_score import CASE_TABLE, IMAGE, VECTOR, flag
from screener_nnu.csv_files import read_csv, write_csv
from screener_nnu.map_kind import SCANS, MapKind
from screener_nnu.outputs.extras import read_record

COLUMNS = (
    "case",
    "case_score",
    "case_percentile",
    "flag",
    "peak_score",
    "mean_score",
    "findings",
    "findings_not_listed",
    "findings_ml",
    "problem",
)


def columns_of(kind: MapKind) -> tuple[str, ...]:
    """Of the table of scans, or of pictures.

    Findings of pictures have an area (pixels) in place of a volume, and maps of pictures are
    blurred as well.
    """
    if kind == SCANS:
        return COLUMNS
    other = {"mean_score": ("mean_score", "smoothed_score"), "findings_ml": ("findings_px",)}
    return tuple(column for name in COLUMNS for column in other.get(name, (name,)))


def write_table(
    folder: Path, cases: Iterable[str], skipped: Mapping[str, str], kind: MapKind = SCANS
) -> Path:
    """Writes `cases.csv`, the scan with the highest case score first.

    `flag` is 1 where the percentile of the case score among held-out scans is 95 or more.
    Scores of a scan that are not made of its map follow, as columns `vector_<name>` and
    `image_<name>`.

    Args:
        folder: of the maps and their records.
        cases: names of all scans that were asked for.
        skipped: why some have no map.
        kind: of the maps.
    """
    columns = columns_of(kind)
    rows = [_row(folder, case, skipped.get(case, ""), columns) for case in cases]
    others = sorted({name for row in rows for name in row if name.startswith((VECTOR, IMAGE))})
    rows.sort(key=lambda row: (-_number(row["case_score"]), -_number(row["peak_score"])))
    write_csv(folder / CASE_TABLE, [*columns, *others], rows)
    return folder / CASE_TABLE


def without_map(folder: Path, cases: Collection[str], kind: MapKind) -> dict[str, str]:
    """Why cases of other parts of a run have no map, as far as the table that is there tells."""
    earlier = {}
    if cases and (folder / CASE_TABLE).is_file():
        earlier = {row["case"]: row.get("problem") for row in read_csv(folder / CASE_TABLE)[1]}
    missing = (case for case in cases if not (folder / f"{case}{kind.map}").is_file())
    return {case: earlier.get(case) or "not predicted yet" for case in missing}


def _row(folder: Path, case: str, reason: str, columns: tuple[str, ...]) -> dict[str, object]:
    record = {} if reason else read_record(folder, case)
    row: dict[str, object] = {key: _cell(record.get(key)) for key in columns}
    # Records of earlier versions have the percentile alone.
    row["flag"] = _cell(flag(record.get("case_percentile")))
    for start, key in ((VECTOR, "vector_scores"), (IMAGE, "image_scores")):
        row |= {f"{start}{name}": _cell(v) for name, v in record.get(key, {}).items()}
    row["case"], row["problem"] = case, reason or "; ".join(record.get("failed", []))
    return row


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else value


def _number(text: object) -> float:
    return float(str(text)) if text not in ("", None) else float("-inf")
