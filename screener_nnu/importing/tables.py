"""Lists of pictures: a CSV of ours, and the `data.json` of MedIAnomaly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from screener_nnu.csv_files import read_csv
from screener_nnu.errors import ScreenerError
from screener_nnu.importing.records import ABNORMAL, NORMAL, TEST, TRAIN, UNKNOWN, Entry

_NEEDED = ("path", "label", "split")
_COLUMNS = "path,label,split[,mask][,group]"
_LABELS = (NORMAL, ABNORMAL, UNKNOWN)


def find_table(root: Path) -> Path | None:
    """The one CSV of a folder with the columns of a list of pictures.

    Raises:
        ScreenerError: there are several.
    """
    found = [path for path in sorted(root.glob("*.csv")) if _is_table(path)]
    if len(found) > 1:
        names = " and ".join(path.name for path in found)
        raise ScreenerError(f"{root} has several tables of pictures, {names}: give one as -i")
    return found[0] if found else None


def read_table(path: Path) -> tuple[Entry, ...]:
    """Pictures of a CSV with the columns `path,label,split[,mask][,group]`.

    Paths are relative to the folder of the CSV, or absolute.

    Raises:
        ScreenerError: a column is missing, or a line is wrong; the message names it.
    """
    columns, lines = read_csv(path)
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise ScreenerError(f"{path} has no column {', '.join(missing)}: give {_COLUMNS}")
    return tuple(
        _entry(path, number, line) for number, line in enumerate(lines, 2) if any(line.values())
    )


def find_data_json(root: Path) -> Path | None:
    """The `data.json` of a folder with the lists `train` and `test`."""
    path = root / "data.json"
    if not path.is_file():
        return None
    values = _json(path)
    return path if isinstance(values, dict) and {TRAIN, TEST} <= values.keys() else None


def read_data_json(path: Path) -> tuple[Entry, ...]:
    """Pictures of a `data.json`: names by label `0` or `1`, in the folder or its `images`.

    Raises:
        ScreenerError: it has another form.
    """
    entries = []
    values = _json(path)
    for split in (TRAIN, TEST):
        by_label = values[split]
        if not isinstance(by_label, dict) or not by_label.keys() <= {NORMAL, ABNORMAL}:
            raise ScreenerError(f"{path}: {split} must hold lists of pictures by label 0 and 1")
        for label, names in sorted(by_label.items()):
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ScreenerError(f"{path}: {split} {label} must be a list of names")
            entries += [Entry(_place(path.parent, name), split, label) for name in names]
    return tuple(entries)


def _is_table(path: Path) -> bool:
    try:
        columns, _ = read_csv(path, only_header=True)
    except ScreenerError:
        return False
    return set(_NEEDED) <= set(columns)


def _entry(path: Path, number: int, line: dict[str, str]) -> Entry:
    where = f"{path}, line {number}"
    if not line.get("path"):
        raise ScreenerError(f"{where}: there is no path")
    label, split = line.get("label", ""), line.get("split", "")
    if label not in _LABELS:
        raise ScreenerError(f"{where}: label {label!a} is not 0 (normal), 1 (abnormal) or empty")
    if split not in (TRAIN, TEST):
        raise ScreenerError(f"{where}: split {split!a} is neither train nor test")
    paths = [line.get(name, "").replace("\\", "/").removeprefix("./") for name in ("path", "mask")]
    return Entry(paths[0], split, label, line.get("group", ""), paths[1])


def _place(root: Path, name: str) -> str:
    name = name.replace("\\", "/").removeprefix("./")
    inner = f"images/{name}"
    return inner if not (root / name).is_file() and (root / inner).is_file() else name


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ScreenerError(f"{path} is no JSON ({error}): correct or remove it") from error
