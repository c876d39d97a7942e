"""Tables in files, as all of the package reads and writes them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing


def read_csv(path: Path, only_header: bool = False) -> tuple[list[str], list[dict[str, str]]]:
    """Names of the columns, and a row by these names for each line, also for an empty one.

    There are no spaces around names and cells. A line that a spreadsheet has cut short ends in
    empty cells.

    Args:
        path: in UTF-8; parted by `,`, or by `;`, which spreadsheets write where the comma is that
            of decimals.
        only_header: read no rows.

    Raises:
        ScreenerError: the file cannot be read, or is no such table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header = stream.readline()
            delimiter = ";" if header.count(";") > header.count(",") else ","
            if not only_header:
                stream.seek(0)
            table = csv.reader([header] if only_header else stream, delimiter=delimiter)
            columns = [name.strip() for name in next(table, [])]
            rows = [
                dict.fromkeys(columns, "") | dict(zip(columns, map(str.strip, cells), strict=False))
                for cells in table
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScreenerError(f"{path} is no CSV in UTF-8 ({error}): save it so") from error
    return columns, rows


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a table whole or not at all.

    Args:
        path: replaced, where it is ours.
        columns: names; what a row has beside them is left out, and what it lacks is an empty cell.
        rows: values by name.
    """
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
