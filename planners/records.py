"""What is known of each image, one JSON line a case, for the next run.

A line is written as soon as its case is known, so that a killed run goes on where it stopped; the
last line of a case counts. An image whose size and time are those of its line is not read again.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from screener_nnu.errors import MEMORY_RAN_OUT, CaseError, some
from screener_nnu.files import replacing
from screener_nnu.planners.fingerprint import RECORD_KEYS, analyse_case
from screener_nnu.preprocessing.memory import bounded_processes, free_memory
from screener_nnu.preprocessing.modality import CT
from screener_nnu.preprocessing.reading import read_size
from screener_nnu.preprocessing.source_state import SourceState, state_if_readable
from screener_nnu.workers import run_cases

logger = logging.getLogger(__name__)

RECORDS_FILE = "screener_fingerprint_cases.jsonl"
_BYTES_PER_VOXEL = 14  # what was read, as float32, turned, and the masks of the body

Record = dict[str, Any]
# An image, and what an earlier run knew of it.
_Task = tuple[Path, Record | None]


def collect_records(
    cases: Mapping[str, Path],
    folder: Path,
    processes: int,
    verify: bool = False,
    modality: str = CT,
) -> list[Record]:
    """Records of all cases, sorted; an image that has not changed since its record is not analysed.

    Args:
        cases: image by name.
        folder: of the records.
        processes: that read images.
        verify: read every image, to compare its content, whatever its time says.
        modality: of the images; a record of another one does not count.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RECORDS_FILE
    stored, lines = _read_records(file)
    gone = stored.keys() - cases.keys()
    if gone:
        logger.warning("no longer there, of the scans of an earlier run: %s", some(gone))
    known = {
        name: record
        for name, record in stored.items()
        if name in cases and record.get("modality", CT) == modality
    }
    todo: dict[str, _Task] = {
        name: (path, known.get(name))
        for name, path in cases.items()
        if verify or not _is_current(known.get(name), path)
    }
    changed = []
    made = _run(todo, processes, modality)
    bar = tqdm(made, total=len(todo), desc="fingerprint", disable=not todo)
    for record in bar:
        _append(file, record)
        lines += 1
        name = record["case"]
        if "skipped" in record:
            logger.warning("skipped %s: %s", name, record["skipped"])
        if _has_changed(known.get(name), record):
            changed.append(name)
        known[name] = record
    if changed:
        logger.info("images that changed since they were read last: %s", some(changed))
    records = [known[name] for name in sorted(known)]
    if lines != len(records):
        _rewrite(file, records)
    return records


def _is_current(record: Record | None, path: Path) -> bool:
    """Whether an image is the one of its record, by its place, size and time."""
    source = _source(record)
    try:
        return (
            record is not None
            and source is not None
            and "skipped" not in record
            and record["image"] == str(path)
            and source.is_untouched(path)
        )
    except OSError:
        return False


def _source(record: Record | None) -> SourceState | None:
    """The image that a record was made from; None where that could not be read."""
    return SourceState.from_dict((record or {}).get("source"))


def _has_changed(old: Record | None, new: Record) -> bool:
    before, now = _source(old), _source(new)
    return before is not None and now is not None and before.sha256 != now.sha256


def _analyse(case: str, task: _Task, modality: str) -> Record:
    """A new record, or the old one where the content is still the same."""
    path, old = task
    source = _source(old)
    if old is not None and source is not None and "skipped" not in old:
        now = state_if_readable(path)
        if now is not None and now.sha256 == source.sha256:
            return {**old, "source": now.to_dict()}
    try:
        return analyse_case(case, path, modality)
    except CaseError as error:
        return {"skipped": error.reason}
    except MemoryError:
        return {"skipped": MEMORY_RAN_OUT}


def _run(todo: Mapping[str, _Task], processes: int, modality: str) -> Iterable[Record]:
    """Records as they are made; a worker that the system kills costs its own case at most."""
    memory = (_BYTES_PER_VOXEL * read_size(path)[0] for path, _ in todo.values())
    processes = bounded_processes(memory, processes, free_memory()) if todo else 0
    alone = processes <= 1 or len(todo) <= 1
    analyse = partial(_analyse, modality=modality)
    outcomes = run_cases(
        analyse, dict(todo), 0 if alone else processes, lambda reason: {"skipped": reason}
    )
    for case, record in outcomes:
        path, _ = todo[case]
        if "skipped" in record:
            # An image that cannot be used any more must not pass for the one that could.
            source = state_if_readable(path)
            record = {**record, "source": source and source.to_dict()}
        yield {**record, "case": case, "image": str(path)}


def _read_records(file: Path) -> tuple[dict[str, Record], int]:
    """The last good record of each case, and how many lines there are."""
    if not file.is_file():
        return {}, 0
    records, lines = {}, 0
    with file.open(encoding="utf-8", errors="replace") as stream:
        for lines, line in enumerate(stream, 1):  # noqa: B007
            try:
                record = json.loads(line, object_pairs_hook=_with_shared_names)
            except ValueError:  # the line that a kill cut off
                continue
            if _is_record(record):
                records[record["case"]] = record
    return records, lines


def _with_shared_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Values by name; the names of bins, the same in every record, are in memory once."""
    return {sys.intern(name): value for name, value in pairs}


def _is_record(value: Any) -> bool:
    """Whether this version wrote it; what an earlier one wrote does not tell which image it saw."""
    if not isinstance(value, dict):
        return False
    keys = {"case", "image", "skipped"} if "skipped" in value else RECORD_KEYS
    return value.keys() >= keys and isinstance(value["case"], str)


def _append(file: Path, record: Record) -> None:
    """Adds a line in one call, so that two runs never write into each other's lines."""
    line = json.dumps(record).encode() + b"\n"
    with file.open("a+b", buffering=0) as stream:
        size = stream.seek(0, 2)
        if size:
            stream.seek(size - 1)
            if stream.read(1) != b"\n":  # what a kill cut off
                line = b"\n" + line
        stream.write(line)


def _rewrite(file: Path, records: Iterable[Record]) -> None:
    with replacing(file) as temporary:
        temporary.write_text("".join(json.dumps(r) + "\n" for r in records))
