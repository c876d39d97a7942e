"""Case names of series for people who know their folders."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from screener_nnu.dicom.files import is_zip
from screener_nnu.dicom.records import Series

# Bytes of a case name: files allow 255, and need room for endings and temporary names.
MAX_NAME = 150
_ODD = re.compile(r"[^\w .,()+-]")


def names_by_folder(series: Sequence[Series], source: Path) -> list[str]:
    """One file name without ending for each series.

    A single series is called as the folder or file that was given; of several, each as the folders
    below that hold its files, joined by `_`. A hash of the series follows where several lie in one
    folder. Names from a zip can be anything: characters other than those of words are replaced.
    """
    root = source.resolve()
    top = root.stem if root.is_file() else root.name
    if len(series) == 1:
        return [shorten(_clean(top), series[0]) or series[0].pseudonym]
    folders = [_clean(folder_of(one, source).replace("/", "_")) for one in series]
    counts = Counter(folders)
    return [
        shorten(folder, s)
        if folder and counts[folder] == 1
        else shorten("_".join(filter(None, (folder, s.pseudonym))), s)
        for folder, s in zip(folders, series, strict=True)
    ]


def shorten(name: str, series: Series) -> str:
    """A name that a file can have: a longer one ends in the pseudonym, so that it stays unique."""
    if len(name.encode()) <= MAX_NAME:
        return name
    room = MAX_NAME - len(series.pseudonym) - 1
    # The cut may fall within a letter of several bytes.
    start = name.encode()[:room].decode(errors="ignore").strip(" ._")
    return f"{start}_{series.pseudonym}"


def folder_of(series: Series, source: Path) -> str:
    """The folder below the source, joined by `/`, in which all files of a series lie."""
    parents = {one.file.parent for one in series.slices}
    common = min(parents, key=len)
    while any(parent[: len(common)] != common for parent in parents):
        common = common[:-1]
    given = (*source.parent.parts, source.stem) if is_zip(source) else source.parts
    return "/".join(common[len(given) :])


def _clean(name: str) -> str:
    return _ODD.sub("_", name).strip(" ._")
