"""How a folder of pictures is laid out: which are for training, which for testing, and masks."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from screener_nnu.errors import ScreenerError, printable, some
from screener_nnu.importing.contents import Pictures
from screener_nnu.importing.raw_layout import raw_data_set
from screener_nnu.importing.records import ABNORMAL, NORMAL, TEST, TRAIN, Entry
from screener_nnu.importing.tables import find_data_json, find_table, read_data_json, read_table

logger = logging.getLogger(__name__)

# The last two parts of a path in the MVTec layout, before the name of the file.
_GOOD = "good"
_MASK = "_mask"
_MASK_FOLDERS = frozenset({"mask", "masks", "label", "labels", "ground_truth", "annotations"})
#: Name of a layout that needs no import.
RAW_DATA_SET = "a raw data set of nnU-Net"


@dataclass(frozen=True)
class Layout:
    """Pictures as a layout sorts them.

    Attributes:
        name: of the layout, for a line.
        entries: the pictures that belong to it.
        left_out: other pictures of the folder, by path.
    """

    name: str
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()


def recognise(pictures: Pictures, group_regex: str = "") -> Layout:
    """Finds the layout: MVTec, `data.json`, a table, a raw data set, or else a plain folder.

    Args:
        pictures: of the folder.
        group_regex: its first group in the path of a picture is the patient; empty: none.

    Raises:
        ScreenerError: a table or list cannot be used, or two pictures are one.
    """
    layout = _recognise(pictures)
    _refuse_repeated(layout.entries)
    if not group_regex:
        return layout
    entries = tuple(replace(e, group=_group(group_regex, e.source)) for e in layout.entries)
    return replace(layout, entries=entries)


def _recognise(pictures: Pictures) -> Layout:
    root, files = pictures.root, pictures.files
    if pictures.table is not None:
        return Layout(f"the table {pictures.table.name}", read_table(pictures.table))
    if entries := _mvtec(files):
        return _layout("the layout of MVTec (train/good, test, ground_truth)", entries, files)
    if (path := find_data_json(root)) is not None:
        return _layout(f"the list {path.name}", read_data_json(path), files)
    if (path := find_table(root)) is not None:
        return _layout(f"the table {path.name}", read_table(path), files)
    if entries := raw_data_set(root, files):
        return _layout(RAW_DATA_SET, entries, files)
    _warn_of_masks(files)
    return Layout("a plain folder, all of whose pictures are normal", tuple(map(Entry, files)))


def _warn_of_masks(files: Sequence[str]) -> None:
    masks = [file for file in files if _MASK_FOLDERS.intersection(file.lower().split("/")[:-1])]
    if masks:
        logger.warning(
            "%s look like masks, and are taken for normal pictures: move them away, or list what "
            "is to be taken in a CSV (path,label,split,mask)",
            some(map(printable, masks)),
        )


def _layout(name: str, entries: Sequence[Entry], files: Sequence[str]) -> Layout:
    used = {e.source for e in entries} | {e.mask for e in entries}
    return Layout(name, tuple(entries), tuple(file for file in files if file not in used))


def _mvtec(files: Sequence[str]) -> list[Entry]:
    """Pictures of `train/good`, `test/good` and `test/<defect>`; none in another layout."""
    if not any(file.startswith(f"{TRAIN}/{_GOOD}/") for file in files):
        return []
    masks = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        if folder.startswith("ground_truth/"):
            defect = folder.removeprefix("ground_truth/")
            masks[defect, Path(name).stem.removesuffix(_MASK)] = file
    entries = []
    for file in files:
        parts = file.split("/")
        if len(parts) < 3 or parts[0] not in (TRAIN, TEST):
            continue
        defect = "/".join(parts[1:-1])
        label = NORMAL if parts[1] == _GOOD else ABNORMAL
        mask = masks.get((defect, Path(file).stem), "") if parts[0] == TEST else ""
        entries.append(Entry(file, parts[0], label, mask=mask))
    return entries


def _group(pattern: str, source: str) -> str:
    found = re.search(pattern, source)
    return printable(found[1] or "") if found else ""


def _refuse_repeated(entries: Sequence[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.source in seen:
            raise ScreenerError(f"{entry.source} is listed twice: keep one of the two")
        seen.add(entry.source)
