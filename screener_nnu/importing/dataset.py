"""Turns every volume of CT of an export into a case of an nnU-Net raw dataset."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import SimpleITK as sitk  # noqa: N813

from screener_nnu.dicom.finding import find_series
from screener_nnu.dicom.naming import folder_of, shorten
from screener_nnu.dicom.records import Found, Series
from screener_nnu.dicom.stacking import Stack
from screener_nnu.dicom.volume import check_series, read_series
from screener_nnu.errors import MEMORY_RAN_OUT, CaseError, printable
from screener_nnu.files import remove_half_written, remove_half_written_of
from screener_nnu.importing.report import (
    KEPT,
    PLANNED,
    REPORT,
    SKIPPED,
    TABLE,
    TAKEN,
    Row,
    read_rows,
    write_description,
    write_rows,
)
from screener_nnu.importing.request import ImportRequest
from screener_nnu.locks import one_after_another
from screener_nnu.ownership import foreign_files, own_folder
from screener_nnu.preprocessing.image_files import write_image
from screener_nnu.preprocessing.memory import bounded_processes, free_memory
from screener_nnu.preprocessing.units import check_intensities
from screener_nnu.workers import part_of, run_cases

logger = logging.getLogger(__name__)

ENDING = "_0000.nii.gz"
_LOCK = ".screener_import.lock"
# A volume in 16 or 32 bits, its copy while it is rescaled, and the compressed file.
_BYTES_PER_VOXEL = 12
_BYTES_PER_PROCESS = 400_000_000


def import_dataset(request: ImportRequest) -> Iterator[Row]:
    """Yields what became of each series, as soon as it is known.

    Cases that are there are left alone. Report and `dataset.json` are written at the end, also when
    the run is stopped; several parts, which may run at once, add to one report.

    Raises:
        ScreenerError: the request cannot be carried out, or a file cannot be written.
    """
    request.check()
    earlier = read_rows(request.folder)
    if not request.dry_run:
        _own_dataset(request.folder, earlier)
        remove_half_written(request.folder / "imagesTr", f".*{re.escape(ENDING)}.*")
    found = find_series(request.source, request.min_slices, progress=True)
    rows: dict[str, Row] = {}
    try:
        for row in _outcomes(request, found, earlier):
            rows[row.series] = row
            yield row
    finally:
        if not request.dry_run and (rows or earlier):
            with one_after_another(request.folder / _LOCK, "nnUNet_raw", "writing its report"):
                # Another part may have added to it.
                _finish(request.folder, read_rows(request.folder) | rows, found)


def _own_dataset(folder: Path, earlier: dict[str, Row]) -> None:
    """Puts the folder of the dataset under the rule of `ownership`.

    What a version without that record has written is ours where its report names it.

    Raises:
        ScreenerError: the report of something else is there.
    """
    owned = own_folder(folder)
    reports = [folder / REPORT, folder / TABLE]
    if earlier:
        images = (folder / "imagesTr" / f"{row.case}{ENDING}" for row in earlier.values())
        owned.adopt([*reports, folder / "dataset.json", *images])
    owned.refuse_foreign(reports)
    remove_half_written_of(folder, (REPORT, TABLE, "dataset.json"))


def _outcomes(request: ImportRequest, found: Found, earlier: dict[str, Row]) -> Iterator[Row]:
    for remark in found.remarks(request.keep_names):
        logger.warning("%s", remark)
    for one in found.left_out if request.part == 0 else ():
        row = replace(_describe(one.series, request), reason=one.reason)
        yield _kept_as_it_was(row, earlier.get(row.series), request) or row
    todo: dict[str, Series] = {}
    planned: dict[str, Row] = {}
    every = {series.pseudonym: series for series in found.series}
    for series in part_of(every, request.part, request.parts).values():
        row = _judge(series, request, earlier)
        if row.status == PLANNED and not request.dry_run:
            todo[row.case], planned[row.case] = series, row
        else:
            yield row
    convert = partial(_convert, folder=request.folder / "imagesTr")
    processes = _processes(list(todo.values()), request.processes)
    for case, reason in run_cases(convert, todo, processes, str):
        row = replace(planned[case], reason=reason, status=TAKEN)
        yield replace(row, status=SKIPPED, case="") if reason else row


def _judge(series: Series, request: ImportRequest, earlier: dict[str, Row]) -> Row:
    """What is to become of a volume, as far as its headers tell."""
    row = _describe(series, request)
    case = _case_name(series, request.keep_names)
    before = earlier.get(row.series)
    try:
        stack = check_series(series, case)
        row = _with_geometry(row, series, stack)
        kept = _kept_as_it_was(row, before, request)
        if kept:
            return kept
        if _is_there(case, request):
            return replace(row, status=KEPT, case=case, reason=_file_changed(case, request))
        _refuse_other_parts(series, request, earlier)
        _check_wishes(series, stack, request)
    except CaseError as error:
        row = replace(row, reason=error.reason)
        return _kept_as_it_was(row, before, request) or row
    return replace(row, status=PLANNED, case=case)


def _kept_as_it_was(row: Row, before: Row | None, request: ImportRequest) -> Row | None:
    """A case that an earlier run took, with what that run said of its file; None if none did.

    It keeps the name that it was imported under, with or without `--keep_names`.
    """
    if before is None or before.status != TAKEN or not _is_there(before.case, request):
        return None
    return replace(
        row,
        status=KEPT,
        case=before.case,
        reason=_changed(row, before) or _file_changed(before.case, request),
        slices=before.slices,
        size=before.size,
        spacing=before.spacing,
    )


def _refuse_other_parts(series: Series, request: ImportRequest, earlier: dict[str, Row]) -> None:
    """Refuses a series that was whole in an earlier export and has parts now, or the reverse.

    Under its new name, a volume that was taken before would be taken once more.
    """
    whole = replace(series, part=0).pseudonym
    taken = [
        row.case
        for name, row in sorted(earlier.items())
        if name.startswith(whole)
        and (name == whole) != (series.part == 0)
        and row.case
        and _is_there(row.case, request)
    ]
    if taken:
        raise CaseError(
            series.pseudonym,
            f"{' and '.join(taken)} of this series was taken when it had other parts: delete that "
            "file in imagesTr to import the series anew",
        )


def _image(case: str, request: ImportRequest) -> Path:
    return request.folder / "imagesTr" / f"{case}{ENDING}"


def _is_there(case: str, request: ImportRequest) -> bool:
    return _image(case, request).is_file()


def _file_changed(case: str, request: ImportRequest) -> str:
    """A warning when the image is not the one that an import wrote."""
    path = _image(case, request)
    if not foreign_files([path]):
        return ""
    return (
        f"{path.name} is not ours, or has changed since it was imported, and stays as it is: "
        "delete it to import the series anew"
    )


def _describe(series: Series, request: ImportRequest) -> Row:
    row = Row(series.pseudonym, SKIPPED, slices=len(series.slices))
    if not request.keep_names:
        return row
    info = series.info
    return replace(
        row,
        patient_id=info.patient_id,
        study_date=info.study_date,
        description=info.description,
        folder=printable(folder_of(series, request.source)),
    )


def _with_geometry(row: Row, series: Series, stack: Stack) -> Row:
    rows, columns = series.slices[0].shape
    return replace(
        row,
        slices=stack.slices,
        size=f"{columns} x {rows} x {stack.slices}",
        spacing=" x ".join(f"{value:.4g}" for value in stack.spacing),
    )


def _case_name(series: Series, keep_names: bool) -> str:
    if not keep_names:
        return series.pseudonym
    known = (series.info.patient_id, series.info.study_date, series.info.number)
    words = [re.sub(r"[^A-Za-z0-9-]+", "-", text).strip("-") for text in known]
    # The hash stays, so that two series of one number are two cases.
    return shorten("_".join([*filter(None, words), series.pseudonym]), series)


def _check_wishes(series: Series, stack: Stack, request: ImportRequest) -> None:
    """Refuses what the options of the import leave out."""
    name, text = series.pseudonym, series.info.description
    widest = max(series.info.thickness, stack.spacing[2])
    if 0 < request.max_thickness < widest:
        raise CaseError(
            name, f"slices of {widest:.4g} mm, more than --max_thickness {request.max_thickness:g}"
        )
    if stack.slices < request.min_slices:
        raise CaseError(
            name, f"{stack.slices} positions, fewer than --min_slices {request.min_slices}"
        )
    if request.include and not re.search(request.include, text, re.IGNORECASE):
        raise CaseError(name, "its description does not match --include")
    if request.exclude and re.search(request.exclude, text, re.IGNORECASE):
        raise CaseError(name, "its description matches --exclude")


def _changed(row: Row, before: Row) -> str:
    """A warning when the export now holds other slices than those that were imported."""
    if row.reason:
        return f"it was imported earlier, but would not be now: {row.reason}"
    if (before.slices, before.size, before.spacing) == (row.slices, row.size, row.spacing):
        return ""
    now = f"{row.slices}" if row.slices != before.slices else "others"
    return (
        f"it was imported with {before.slices} slices and has {now} now: delete its file in "
        "imagesTr to import it again"
    )


def _processes(series: list[Series], wanted: int) -> int:
    if wanted == 0 or not series:
        return wanted
    voxels = [len(s.slices) * s.slices[0].shape[0] * s.slices[0].shape[1] for s in series]
    needs = [_BYTES_PER_PROCESS + _BYTES_PER_VOXEL * count for count in voxels]
    number = bounded_processes(needs, min(wanted, len(series)), free_memory())
    if number < min(wanted, len(series)):
        logger.warning("%d processes instead of %d: memory is short", number, wanted)
    return number


def _convert(case: str, series: Series, folder: Path) -> str:
    """Writes a case; returns why it cannot be used, or nothing."""
    try:
        image = read_series(series, case).image
        check_intensities(sitk.GetArrayViewFromImage(image), case)
    except CaseError as error:
        return error.reason
    except MemoryError:
        return MEMORY_RAN_OUT
    write_image(image, folder / f"{case}{ENDING}")
    return ""


def _finish(folder: Path, rows: dict[str, Row], found: Found) -> None:
    """Writes the report and the `dataset.json` of unlabelled CT."""
    files = {
        "not_dicom_images": found.other_files,
        "damaged_headers": found.unreadable,
        "zips_not_read": len(found.bad_zips),
        "folders_not_read": len(found.bad_folders),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, rows, files)
    files_there = (folder / "imagesTr").glob(f"*{ENDING}")
    images = sum(not path.name.startswith(".") for path in files_there)
    description = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0},
        "numTraining": images,
        "file_ending": ".nii.gz",
    }
    write_description(folder, description)
