"""A raw data set of nnU-Net whose images are pictures, as a layout of an import."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from screener_nnu.csv_files import read_csv
from screener_nnu.errors import ScreenerError
from screener_nnu.importing.records import NORMAL, TEST, TRAIN, UNKNOWN, Entry
from screener_nnu.preprocessing.raw_dataset import PICTURE_TABLE

_CHANNEL = re.compile(r"_(\d{4})$")
_SPLITS = {"imagesTr": (TRAIN, "labelsTr"), "imagesTs": (TEST, "labelsTs")}


def raw_data_set(root: Path, files: Sequence[str]) -> list[Entry]:
    """Pictures of `imagesTr` and `imagesTs`, with masks of `labelsTr` and `labelsTs`.

    What our own `pictures.csv` says of labels and groups is kept; else the masks tell later.

    Args:
        root: the folder.
        files: pictures in it, relative to it.

    Raises:
        ScreenerError: a case has several channels in files of their own.
    """
    if not (root / "dataset.json").is_file():
        return []
    found = {folder: _by_case(files, folder) for folder in _SPLITS}
    if not found["imagesTr"]:
        return []
    known = _known(root / PICTURE_TABLE)
    entries = []
    for folder, (split, labels) in _SPLITS.items():
        masks = {PurePosixPath(f).stem: f for f in files if f.startswith(f"{labels}/")}
        for case, file in found[folder].items():
            row = known.get((split, case), {})
            unknown = UNKNOWN if case in masks or split == TEST else NORMAL
            label = row.get("label", unknown)
            entries.append(Entry(file, split, label, row.get("group", ""), masks.get(case, "")))
    return entries


def _by_case(files: Sequence[str], folder: str) -> dict[str, str]:
    cases: dict[str, str] = {}
    for file in files:
        path = PurePosixPath(file)
        channel = _CHANNEL.search(path.stem)
        if str(path.parent) != folder or channel is None:
            continue
        if channel[1] != "0000":
            raise ScreenerError(
                f"{file} is a channel of its own: give pictures of one file each, grey or RGB"
            )
        cases[path.stem[: -len(channel[0])]] = file
    return cases


def _known(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    if not path.is_file():
        return {}
    return {(row.get("split", ""), row.get("case", "")): row for row in read_csv(path)[1]}
