"""A table of all scans of a folder of maps: where to look first."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

from screener_nnu.files import replacing
from screener_nnu.outputs.extras import TABLE, read_record

COLUMNS = (
    "case",
    "case_score",
    "case_percentile",
    "peak_score",
    "findings",
    "findings_not_listed",
    "findings_ml",
    "problem",
)
VECTOR = "vector_"


def write_table(folder: Path, cases: Iterable[str], skipped: Mapping[str, str]) -> Path:
    """Writes `cases.csv`, the scan with the highest case score first.

    Scores of a scan that are not made of its map follow, as columns `vector_<name>`.

    Args:
        folder: of the maps and their records.
        cases: names of all scans that were asked for.
        skipped: why some have no map.
    """
    rows = [_row(folder, case, skipped.get(case, "")) for case in cases]
    vectors = sorted({name for row in rows for name in row if name.startswith(VECTOR)})
    rows.sort(key=lambda row: (-_number(row["case_score"]), -_number(row["peak_score"])))
    with replacing(folder / TABLE) as temporary:
        with temporary.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, [*COLUMNS, *vectors])
            writer.writeheader()
            writer.writerows(rows)
    return folder / TABLE


def _row(folder: Path, case: str, reason: str) -> dict[str, object]:
    record = {} if reason else read_record(folder, case)
    row: dict[str, object] = {key: _cell(record.get(key)) for key in COLUMNS}
    row |= {f"{VECTOR}{name}": _cell(v) for name, v in record.get("vector_scores", {}).items()}
    row["case"], row["problem"] = case, reason or "; ".join(record.get("failed", []))
    return row


def _cell(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4f}"
    return "" if value is None else value


def _number(text: object) -> float:
    return float(str(text)) if text not in ("", None) else float("-inf")
