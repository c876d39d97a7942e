"""Tables as people's programs write them, and ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from screener_nnu.csv_files import read_csv, write_csv
from screener_nnu.errors import ScreenerError


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeff case ;label;note\nö; 1 \n\nb;0;1,5\n", encoding="utf-8")
    columns, rows = read_csv(path)
    assert columns == ["case", "label", "note"]
    empty = dict.fromkeys(columns, "")
    # A line keeps its number, also behind an empty one.
    assert rows == [
        {"case": "ö", "label": "1", "note": ""}, empty, {"case": "b", "label": "0", "note": "1,5"}
    ]  # fmt: skip
    assert read_csv(path, only_header=True) == (columns, [])


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ("a", "b"), [{"a": 'x, "y"', "b": 2, "left out": 3}, {"a": "z"}])
    assert read_csv(path)[1] == [{"a": 'x, "y"', "b": "2"}, {"a": "z", "b": ""}]
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]


def test_no_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("Größe\n".encode("latin1"))
    with pytest.raises(ScreenerError, match="a.csv is no CSV in UTF-8"):
        read_csv(path)
