"""What must not lie in training and test at once: a patient, and two files with the same bytes."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from screener_nnu.errors import ScreenerError, some
from screener_nnu.files import file_sha256
from screener_nnu.importing.records import TEST, TRAIN, PictureRow
from screener_nnu.importing.report import SKIPPED

logger = logging.getLogger(__name__)

MIN_NORMALS = 10


def refuse_shared_groups(rows: Iterable[PictureRow]) -> None:
    """Refuses patients with pictures in both splits.

    Raises:
        ScreenerError: there is one; the message names it.
    """
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row.group and row.status != SKIPPED:
            groups[row.group].setdefault(row.split, row.source)
    shared = [
        f"{group} ({places[TRAIN]} and {places[TEST]})"
        for group, places in groups.items()
        if len(places) > 1
    ]
    if shared:
        raise ScreenerError(
            f"pictures of one group lie in train and test, which is a leak: {some(shared)}; move "
            "all pictures of a group to one side"
        )


def with_hashes(rows: Sequence[PictureRow], root: Path) -> list[PictureRow]:
    """Rows with the hash of their file, where another file has the same size."""
    sizes = Counter(row.bytes for row in rows)
    return [
        replace(row, sha256=_hash(root / row.source))
        if row.bytes and sizes[row.bytes] > 1 and not row.sha256
        else row
        for row in tqdm(rows, desc="same bytes", unit="picture", delay=2)
    ]


def refuse_twins(rows: Iterable[PictureRow]) -> None:
    """Refuses files with the same bytes in train and test; within one of them they are logged.

    Raises:
        ScreenerError: there is a pair; the message names it.
    """
    twins: dict[str, list[PictureRow]] = defaultdict(list)
    for row in rows:
        if row.sha256 and row.status != SKIPPED:
            twins[row.sha256].append(row)
    leaks, pairs = [], []
    for same in twins.values():
        splits = {row.split: row.source for row in same}
        if len(splits) > 1:
            leaks.append(f"{splits[TRAIN]} = {splits[TEST]}")
        elif len(same) > 1:
            pairs.append(f"{same[0].source} = {same[1].source}")
    if leaks:
        raise ScreenerError(
            f"the same bytes lie in train and test, which is a leak: {some(leaks)}; remove one of "
            "each pair"
        )
    if pairs:
        logger.warning("the same bytes lie in two files: %s; keep one of each pair", some(pairs))


def refuse_few_normals(rows: Iterable[PictureRow]) -> None:
    """Refuses a data set of fewer than `MIN_NORMALS` training pictures.

    Raises:
        ScreenerError: there are fewer.
    """
    number = sum(row.split == TRAIN and row.status != SKIPPED for row in rows)
    if number < MIN_NORMALS:
        raise ScreenerError(
            f"{number} normal training pictures can be used, but at least {MIN_NORMALS} are "
            "needed: add some"
        )


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except (OSError, ScreenerError):  # said when the picture is read
        return ""
