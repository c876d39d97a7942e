"""What is to become of each picture, and all that is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from screener_nnu.errors import printable
from screener_nnu.importing.case_names import case_names
from screener_nnu.importing.kinds import (
    Kind,
    choose_form,
    must_be_looked_at,
    shown_kind,
    stated_kind,
    use_16_bits,
)
from screener_nnu.importing.leaks import (
    refuse_few_normals,
    refuse_shared_groups,
    refuse_twins,
    with_hashes,
)
from screener_nnu.importing.picture_report import Report
from screener_nnu.importing.records import ABNORMAL, TRAIN, Entry, Form, PictureRow
from screener_nnu.importing.report import KEPT, PLANNED, SKIPPED, TAKEN
from screener_nnu.importing.request import ImportRequest
from screener_nnu.importing.writing import ABNORMAL_IN_TRAINING, ENDING, case_files
from screener_nnu.ownership import foreign_files
from screener_nnu.workers import run_cases

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


def plan_rows(
    request: ImportRequest, root: Path, entries: Iterable[Entry], report: Report
) -> tuple[list[PictureRow], Form]:
    """A row for each picture, and how they are to be written.

    Args:
        request: of the import.
        root: folder of the sources.
        entries: the pictures of the layout.
        report: of earlier runs.

    Raises:
        ScreenerError: the pictures make no data set.
    """
    rows = _first_rows(request, root, entries, report)
    listed = {printable(row.source) for row in rows}
    others = [row for row in report.taken() if row.source not in listed]
    refuse_shared_groups([*others, *rows])
    rows = with_hashes(rows, root)
    refuse_twins([*others, *rows])
    rows = _with_kinds(rows, root, request, report.form)
    refuse_few_normals([*others, *rows])
    if report.form is not None and not any(row.status == PLANNED for row in rows):
        return rows, report.form
    usable = [row for row in rows if row.status != SKIPPED]
    return rows, choose_form([*others, *usable], request.colour, report.form)


def run_pictures(
    function: Callable[[str, Item], Outcome],
    items: dict[str, Item],
    processes: int,
    what: str,
    died: Callable[[str], Outcome],
) -> Iterator[tuple[str, Outcome]]:
    """As `run_cases`, with a bar; no process is started for nothing."""
    if items:
        running = run_cases(function, items, min(processes, len(items)), died)
        yield from tqdm(running, desc=what, total=len(items), unit="picture", delay=2)


def _first_rows(
    request: ImportRequest, root: Path, entries: Iterable[Entry], report: Report
) -> list[PictureRow]:
    """Rows as far as lists, names and earlier runs tell."""
    folder = request.folder
    rows = []
    for entry in entries:
        stamp = _stamp(root / entry.source)
        before = report.rows.get(printable(entry.source))
        if before is not None and before.status == TAKEN:
            rows.append(_kept(before, entry, stamp))
        else:
            rows.append(_new(entry, stamp))
    return [
        _without_foreign(row, folder) if row.status == PLANNED else row
        for row in _named(rows, report)
    ]


def _new(entry: Entry, stamp: tuple[int, int]) -> PictureRow:
    refused = entry.split == TRAIN and entry.label == ABNORMAL
    return PictureRow(
        entry.source,
        SKIPPED if refused else PLANNED,
        split=entry.split,
        label=entry.label,
        group=entry.group,
        mask=entry.mask,
        reason=ABNORMAL_IN_TRAINING if refused else "",
        bytes=stamp[0],
        changed=stamp[1],
    )


def _kept(before: PictureRow, entry: Entry, stamp: tuple[int, int]) -> PictureRow:
    """A case of an earlier run, with what has changed since."""
    row = replace(before, status=KEPT)
    if (before.bytes, before.changed) != stamp:
        what = "its file has changed since it was imported"
    elif (entry.split, entry.group) != (before.split, before.group) or entry.label not in (
        "",
        before.label,
    ):
        what = "it is listed with another split, label or group than it was imported with"
    else:
        return row
    return replace(row, reason=f"{what}: delete {before.case}{ENDING} to import it again")


def _named(rows: list[PictureRow], report: Report) -> list[PictureRow]:
    """Rows with case names; those of earlier cases stay."""
    new = [row.source for row in rows if row.status == PLANNED]
    fresh = set(map(printable, new))
    taken = [row.case for row in report.taken() if row.source not in fresh]
    names = dict(zip(new, case_names(new, taken), strict=True))
    return [replace(row, case=names[row.source]) if row.source in names else row for row in rows]


def _without_foreign(row: PictureRow, folder: Path) -> PictureRow:
    """A new case is skipped where a file of its name is not ours."""
    if found := foreign_files(case_files(row, folder)):
        reason = f"{found[0]} is there and is not ours: move it away, or choose another -d"
        return replace(row, status=SKIPPED, reason=reason)
    return row


def _with_kinds(
    rows: list[PictureRow], root: Path, request: ImportRequest, written: Form | None
) -> list[PictureRow]:
    """Rows with what headers and, where those do not tell, pixels say."""
    paths = {row.case: root / row.source for row in rows if row.status == PLANNED}
    processes = request.processes

    def died(reason: str) -> Kind:
        return Kind(problem=reason)

    kinds = dict(run_pictures(stated_kind, paths, processes, "headers", died))
    doubtful = {case: paths[case] for case in must_be_looked_at(kinds, request.colour, written)}
    kinds |= run_pictures(shown_kind, doubtful, processes, "grey or colour", died)
    if not use_16_bits(kinds, paths):
        kinds = {c: replace(k, bits=0) if k.bits == 16 else k for c, k in kinds.items()}
    return [_with_kind(row, kinds[row.case]) if row.case in kinds else row for row in rows]


def _with_kind(row: PictureRow, kind: Kind) -> PictureRow:
    if row.status != PLANNED:
        return row
    if kind.problem:
        return replace(row, status=SKIPPED, reason=kind.problem)
    return replace(row, channels=kind.channels, bits=kind.bits)


def _stamp(path: Path) -> tuple[int, int]:
    """Size (bytes) and time of the last change (ns) of a file; zeros where there is none."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return 0, 0
    return found.st_size, found.st_mtime_ns
