"""Prepares all cases of a dataset: in processes, resumable, in parts, with a report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tqdm import tqdm

from screener_nnu.errors import MEMORY_RAN_OUT, CaseError, ScreenerError, some
from screener_nnu.plans import PreprocessingSettings, Shape, write_json
from screener_nnu.preprocessing.case_files import (
    CaseFolder,
    add_source,
    refuse_other_files,
    remove_case,
    write_case,
)
from screener_nnu.preprocessing.marker import settings_values
from screener_nnu.preprocessing.memory import bounded_processes, estimate_bytes, free_memory
from screener_nnu.preprocessing.prepare import Frame, prepare_image
from screener_nnu.preprocessing.reading import RawImage
from screener_nnu.preprocessing.source_state import SourceState, read_with_state
from screener_nnu.workers import part_of, run_cases

logger = logging.getLogger(__name__)


@dataclass
class Summary:
    """What a run over a dataset did.

    Attributes:
        done: cases prepared in this run.
        already_done: cases that an earlier run had finished.
        replaced: cases whose scans were replaced since an earlier run had finished them.
        skipped: reason by case.
        seconds: wall clock of the run.
        seconds_per_scan: mean time one process took for a scan of this run.
        bytes_per_scan: mean bytes on disk of a scan of this run or an earlier one.
        processes: how many ran at a time.
    """

    done: int = 0
    already_done: int = 0
    replaced: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    seconds_per_scan: float = 0.0
    bytes_per_scan: float = 0.0
    processes: int = 0


@dataclass
class _Stored:
    """What is there of some cases.

    Attributes:
        missing: cases to be prepared, and what from.
        changed: those among them that are whole, but no longer what was written.
        replaced: those among them that are whole, but were made from other scans.
        without_source: cases whose markers do not say what they were made from.
        size: bytes of the cases that stay.
    """

    missing: dict[str, Path] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    without_source: list[str] = field(default_factory=list)
    size: int = 0


@dataclass(frozen=True)
class _Outcome:
    """One case: time and bytes, or why it was skipped."""

    seconds: float = 0.0
    size: int = 0
    reason: str = ""


def preprocess_dataset(
    cases: dict[str, Path],
    settings: PreprocessingSettings,
    folder: Path,
    min_shape: Shape,
    processes: int,
    part: int = 0,
    parts: int = 1,
    scans: Mapping[str, SourceState] = MappingProxyType({}),
    on_replaced: Callable[[list[str]], None] | None = None,
    verify: bool = False,
) -> Summary:
    """Prepares cases into a folder; those that are finished are left alone.

    A finished case whose scan was replaced since is prepared again.

    Args:
        cases: image file, or folder of a DICOM series, by case.
        settings: how; the same for all cases of the folder.
        folder: of the cases; the summary is written next to it.
        min_shape: smallest body box (voxels of the plan's grid) that is of use.
        processes: at most so many at a time, fewer when memory is short; 0: in this process.
        part: which share of the cases, counted from 0; shares can run on several machines.
        parts: number of shares.
        scans: how the scans are now; a finished case that has no entry counts as current.
        on_replaced: called with the cases whose scans were replaced, before they are removed.
        verify: read finished cases, and prepare those again that are not as they were written.

    Raises:
        ScreenerError: the folder holds cases of other settings or files of somebody else, no space
            is left, or there is no such part.
    """
    begin = time.monotonic()
    share = part_of(cases, part, parts)
    stored = _look_up(share, settings, folder, scans, verify)
    summary = Summary(replaced=stored.replaced)
    # Only after every check: a refused run changes nothing.
    _clear(stored, folder, scans, on_replaced)
    todo, size = stored.missing, stored.size
    summary.already_done = len(share) - len(todo)
    summary.processes = _processes(todo, settings, processes)
    work = partial(_prepare_case, settings=settings, folder=folder, min_shape=min_shape)
    outcomes = run_cases(work, todo, summary.processes, lambda reason: _Outcome(reason=reason))
    spent = 0.0
    try:
        for case, outcome in tqdm(outcomes, total=len(todo), desc="preprocessing", unit="scan"):
            if outcome.reason:
                summary.skipped[case] = outcome.reason
                logger.warning("skipped %s: %s", case, outcome.reason)
                continue
            summary.done += 1
            spent += outcome.seconds
            size += outcome.size
    finally:
        # Closing waits for the cases under way, so that Ctrl-C leaves no process behind.
        outcomes.close()
        summary.seconds = round(time.monotonic() - begin, 2)
        summary.seconds_per_scan = round(spent / max(summary.done, 1), 3)
        summary.bytes_per_scan = round(size / max(summary.done + summary.already_done, 1))
        write_json(_summary_file(folder, part, parts), asdict(summary))
    return summary


def _summary_file(folder: Path, part: int, parts: int) -> Path:
    suffix = f"_part_{part}_of_{parts}" if parts > 1 else ""
    return folder.parent / f"preprocessing_summary{suffix}.json"


def _look_up(
    cases: dict[str, Path],
    settings: PreprocessingSettings,
    folder: Path,
    scans: Mapping[str, SourceState],
    verify: bool,
) -> _Stored:
    """Which cases are there, whole and made from the scans as they are now; changes nothing."""
    stored = CaseFolder(folder)
    finished = set(stored.finished())
    wanted = settings_values(settings)
    found = _Stored()
    for case, path in tqdm(cases.items(), desc="verifying", unit="scan", disable=not verify):
        marker = stored.whole_marker(case) if case in finished else None
        if marker is None:
            found.missing[case] = path
            continue
        _check_settings(marker.settings, wanted, case, folder)
        scan = scans.get(case)
        if scan is not None and not marker.is_of(scan):
            found.missing[case] = path
            found.replaced.append(case)
            continue
        if verify and stored.has_changed(case, marker):
            found.missing[case] = path
            found.changed.append(case)
            continue
        found.size += sum(marker.sizes.values())
        if marker.source is None and scan is not None:
            found.without_source.append(case)
    refuse_other_files(folder, found.missing)
    return found


def _clear(
    stored: _Stored,
    folder: Path,
    scans: Mapping[str, SourceState],
    on_replaced: Callable[[list[str]], None] | None,
) -> None:
    """Removes what is to be made again, and says which scans were replaced."""
    if stored.replaced:
        number = len(stored.replaced)
        replaced = (
            f"{number} scans were replaced since they were prepared"
            if number > 1
            else "1 scan was replaced since it was prepared"
        )
        logger.warning("%s: %s", replaced, some(stored.replaced))
        if on_replaced is not None:
            on_replaced(stored.replaced)
    if stored.changed:
        logger.warning(
            "prepared again, since they are not as they were written: %s", some(stored.changed)
        )
    for case in stored.without_source:
        add_source(folder, case, scans[case])
    for case in stored.missing:
        remove_case(folder, case)


def _check_settings(found: dict[str, Any], wanted: dict[str, Any], case: str, folder: Path) -> None:
    if found == wanted:
        return
    keys = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    raise ScreenerError(
        f"{folder} holds cases of other settings ({case}: {', '.join(keys)}): delete that folder, "
        "or give the plan another data_identifier"
    )


def _processes(cases: dict[str, Path], settings: PreprocessingSettings, wanted: int) -> int:
    if wanted == 0 or not cases:
        return wanted
    wanted = min(wanted, len(cases))
    free = free_memory()
    needs = [estimate_bytes(path, settings) for path in cases.values()]
    number = bounded_processes(needs, wanted, free)
    if free is not None and number < wanted:
        logger.warning(
            "%d processes instead of %d: the largest scan needs about %.1f GB and %.1f GB are free",
            number,
            wanted,
            max(needs) / 1e9,
            free / 1e9,
        )
    return number


def _prepare_case(
    case: str, path: Path, settings: PreprocessingSettings, folder: Path, min_shape: Shape
) -> _Outcome:
    begin = time.monotonic()
    try:
        raw, source = read_with_state(path, case, settings.modality)
        _check_filters(raw, settings)
        prepared = prepare_image(raw, settings)
        _check_size(prepared.frame, case, min_shape, settings)
    except CaseError as error:
        return _Outcome(reason=error.reason)
    except MemoryError:
        return _Outcome(reason=MEMORY_RAN_OUT)
    size = write_case(folder, case, prepared, source)
    return _Outcome(seconds=time.monotonic() - begin, size=size)


def _check_filters(raw: RawImage, settings: PreprocessingSettings) -> None:
    if raw.shape[0] < settings.min_slices:
        raise CaseError(
            raw.case,
            f"it has {raw.shape[0]} slices, fewer than min_slices {settings.min_slices}: "
            "lower that setting to use it",
        )
    limits = settings.max_raw_spacing
    if any(0 < limit < size for size, limit in zip(raw.spacing, limits, strict=True)):
        raise CaseError(
            raw.case,
            f"its spacing {_text(raw.spacing)} mm exceeds max_raw_spacing {_text(limits)} mm: "
            "raise that setting to use it",
        )


def _check_size(frame: Frame, case: str, min_shape: Shape, settings: PreprocessingSettings) -> None:
    if any(n < least for n, least in zip(frame.grid_shape, min_shape, strict=True)):
        least_mm = [n * size for n, size in zip(min_shape, settings.spacing, strict=True)]
        raise CaseError(
            case,
            f"the body fills only {_text(frame.box_mm)} mm (z, y, x), less than the "
            f"{_text(least_mm)} mm that half a crop needs: plan for smaller crops or leave it out",
        )


def _text(values: Any) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
