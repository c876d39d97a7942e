"""Raw datasets as nnU-Net has them: which images there are, and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from screener_nnu.csv_files import read_csv
from screener_nnu.errors import ScreenerError, printable, some
from screener_nnu.preprocessing.image_files import is_volume
from screener_nnu.preprocessing.pictures import is_picture

#: Of an import of pictures: case, split, label, group and source of each.
PICTURE_TABLE = "pictures.csv"


def find_cases(raw_dataset_folder: Path) -> dict[str, Path]:
    """Cases of an nnU-Net raw dataset, `imagesTr/<case>_0000<file_ending>`, by name.

    Raises:
        ScreenerError: no `dataset.json`, more than one channel, no image, or volumes and pictures.
    """
    values = read_description(raw_dataset_folder)
    description = raw_dataset_folder / "dataset.json"
    channels, ending = values["channel_names"], values["file_ending"]
    # The colours of a picture are in one file.
    if len(channels) != 1 and not (len(channels) == 3 and is_picture(ending)):
        raise ScreenerError(
            f"{raw_dataset_folder.name} has {len(channels)} channels ({description}), but only "
            "scans with one channel, and pictures, can be used: make a dataset of one channel alone"
        )
    if "dataset" in values:
        listed = sorted(values["dataset"].items())
        return {case: raw_dataset_folder / entry["images"][0] for case, entry in listed}
    return _images(raw_dataset_folder / "imagesTr", ending)


def read_description(raw_dataset_folder: Path) -> dict[str, Any]:
    """The `dataset.json` of a raw dataset, with all that is read of it.

    Raises:
        ScreenerError: it is missing or damaged, or lacks something.
    """
    path = raw_dataset_folder / "dataset.json"
    if not path.is_file():
        raise ScreenerError(
            f"{path} is missing: write one as nnU-Net asks for; "
            "documentation/plan_and_preprocess.md shows that of unlabelled scans"
        )
    try:
        text = path.read_text(encoding="utf-8")
        if text.startswith("\ufeff"):
            raise ScreenerError(
                f"{path} begins with a byte order mark: save it as UTF-8 without one"
            )
        values = json.loads(text)
    except UnicodeDecodeError as error:
        raise ScreenerError(f"{path} is no text in UTF-8: save it as that") from error
    except ValueError as error:
        raise ScreenerError(f"{path} is no JSON ({error}): correct it") from error
    reason = _lack(values)
    if reason:
        raise ScreenerError(f"{path} is not what nnU-Net asks for ({reason}): correct it")
    return values


def _lack(values: Any) -> str:
    """What nnU-Net would miss in a `dataset.json`; empty where nothing is."""
    if not isinstance(values, dict):
        return "it holds no names with values"
    for name in ("channel_names", "file_ending"):
        if name not in values:
            return f"it has no {name}"
    if not isinstance(values["channel_names"], dict):
        return 'channel_names has to be like {"0": "CT"}'
    ending = values["file_ending"]
    if not isinstance(ending, str) or not ending.startswith("."):
        return f"file_ending is {ending!r}, but has to be like '.nii.gz'"
    listed = values.get("dataset", {})
    if not isinstance(listed, dict):
        return "dataset holds no cases by name"
    for case, entry in listed.items():
        if not isinstance(entry, dict) or not entry.get("images"):
            return f"dataset names no images of {case}"
        if "/" in case or "\\" in case:
            return f"dataset names a case {case}, which cannot be the name of a file"
    return ""


def _images(folder: Path, ending: str) -> dict[str, Path]:
    suffix = f"_0000{ending}"
    found = sorted(folder.glob(f"*{ending}")) if folder.is_dir() else []
    _refuse_two_kinds(folder, ending, found)
    # Hidden ones are what a killed run left half written.
    files = [file for file in found if not file.name.startswith(".")]
    if not files:
        raise ScreenerError(
            f"no image *{suffix} in {folder}: put the scans there, or correct file_ending in "
            "dataset.json"
        )
    odd = [file.name for file in files if not file.name.endswith(suffix)]
    if odd:
        raise ScreenerError(
            f"{len(odd)} files in {folder} do not end in {suffix}, for instance "
            f"{printable(odd[0])}: rename "
            "them, or take further channels out"
        )
    return {printable(file.name[: -len(suffix)]): file for file in files}


def _refuse_two_kinds(folder: Path, ending: str, files: list[Path]) -> None:
    """Refuses pictures among volumes, or volumes among pictures, which nobody would notice."""
    pictures = is_picture(ending)
    others = [
        path.name
        for path in (sorted(folder.iterdir()) if folder.is_dir() else [])
        if path.name[0] != "." and (is_volume(path) if pictures else is_picture(path))
    ]
    if files and others:
        kinds = ("pictures", "volumes") if pictures else ("volumes", "pictures")
        raise ScreenerError(
            f"{folder} holds {len(files)} {kinds[0]} ({some([f.name for f in files])}) and "
            f"{len(others)} {kinds[1]} ({some(others)}): make a dataset of each"
        )


def read_groups(raw_dataset_folder: Path) -> dict[str, str]:
    """Group, such as the patient, of each case that has one, by `pictures.csv` of an import.

    Raises:
        ScreenerError: that table cannot be read.
    """
    table = raw_dataset_folder / PICTURE_TABLE
    if not table.is_file():
        return {}
    try:
        _, rows = read_csv(table)
        return {row["case"]: row["group"] for row in rows if row["group"]}
    except (ScreenerError, KeyError) as error:
        raise ScreenerError(
            f"{table} has no columns case and group that can be read ({error!r}): import the "
            "pictures again, or correct it"
        ) from error
