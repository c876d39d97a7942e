"""Turns the pictures of a folder into an nnU-Net raw data set of normal ones, and test ones."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from screener_nnu.errors import ScreenerError, printable, some
from screener_nnu.files import remove_half_written, remove_half_written_of
from screener_nnu.importing.contents import Pictures
from screener_nnu.importing.layouts import RAW_DATA_SET, Layout, recognise
from screener_nnu.importing.leaks import refuse_few_normals
from screener_nnu.importing.picture_report import Report, journal, own_files
from screener_nnu.importing.planning import plan_rows, run_pictures
from screener_nnu.importing.records import TEST, TRAIN, Form, PictureRow
from screener_nnu.importing.report import PLANNED, SKIPPED, write_description
from screener_nnu.importing.request import ImportRequest
from screener_nnu.importing.writing import IMAGE_FOLDERS, MASK_FOLDER, write_case
from screener_nnu.ownership import own_folder
from screener_nnu.paths import raw_root

logger = logging.getLogger(__name__)

_FILE_ENDING = ".png"


def import_pictures(request: ImportRequest, pictures: Pictures) -> Iterator[PictureRow]:
    """Yields what became of each picture, as soon as it is known.

    Nothing is written before all pictures were looked at. Cases that are there are left alone.
    Reports and `dataset.json` are written at the end, also when the run is stopped.

    Raises:
        ScreenerError: the pictures make no data set, or a file cannot be written.
    """
    request.check()
    report = Report.read(request.folder)
    _refuse_other_images(request.folder)
    layout = recognise(pictures, request.group_regex)
    _say(layout, request)
    if not request.dry_run:
        files = own_files(request.folder)
        own_folder(request.folder).refuse_foreign(files)
        remove_half_written_of(request.folder, [file.name for file in files])
        for name in (*IMAGE_FOLDERS.values(), MASK_FOLDER):
            remove_half_written(request.folder / name, f".*{re.escape(_FILE_ENDING)}.*")
    rows, form = plan_rows(request, pictures.root, layout.entries, report)
    done: dict[str, PictureRow] = {}
    try:
        for row in _outcomes(request, pictures.root, rows, form):
            done[row.source] = row
            yield row
        if not request.dry_run:
            refuse_few_normals((report.rows | done).values())
    finally:
        if not request.dry_run and done:
            report.rows |= done
            report.form = form
            _finish(request.folder, report)


def _refuse_other_images(folder: Path) -> None:
    path = folder / "dataset.json"
    if not path.is_file():
        return
    try:
        ending = json.loads(path.read_text(encoding="utf-8")).get("file_ending")
    except (ValueError, AttributeError):
        ending = "another format"
    if ending != _FILE_ENDING:
        raise ScreenerError(f"{folder} has images in {ending}: choose another number (-d)")


def _say(layout: Layout, request: ImportRequest) -> None:
    """Says what was recognised, and what of it is left out.

    Raises:
        ScreenerError: the source is the data set itself.
    """
    source = request.source
    logger.info("%s is %s: %d pictures", source, layout.name, len(layout.entries))
    if layout.name == RAW_DATA_SET and source.parent == raw_root():
        command = f"screener_plan_and_preprocess -d {source.name[7:10]}"
        if source == request.folder:
            raise ScreenerError(f"{source} is a raw data set, and needs no import: {command}")
        logger.info("it can be used as it is: %s; it is copied now", command)
    if layout.left_out:
        names = some(map(printable, layout.left_out))
        logger.warning("pictures that are not part of it are left out: %s", names)
    without = [printable(entry.source) for entry in layout.entries if not entry.group]
    if request.group_regex and without:
        logger.warning("--group_regex finds no group in %s", some(without))


def _outcomes(
    request: ImportRequest, root: Path, rows: list[PictureRow], form: Form
) -> Iterator[PictureRow]:
    masks = any(row.mask and row.split == TEST for row in rows)
    todo: dict[str, PictureRow] = {}
    for row in rows:
        if row.status == PLANNED and not request.dry_run:
            todo[row.case] = row
        else:
            yield _final(row)
    if not todo:
        return
    write = partial(write_case, root=root, folder=request.folder, form=form, masks=masks)

    def died(reason: str) -> PictureRow:
        return PictureRow("", SKIPPED, reason=reason)

    with journal(request.folder, form) as note:
        for case, row in run_pictures(write, todo, request.processes, "pictures", died):
            if not row.source:
                row = replace(todo[case], status=SKIPPED, reason=row.reason)
            note(_final(row))
            yield _final(row)


def _final(row: PictureRow) -> PictureRow:
    """A row as it is reported: without a case where there is none, and printable."""
    case = "" if row.status == SKIPPED else row.case
    return replace(row, case=case, source=printable(row.source), mask=printable(row.mask))


def _finish(folder: Path, report: Report) -> None:
    """Writes the reports and the `dataset.json` of pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    report.write(folder)
    if report.form is None:
        return
    grey, masks = report.form.channels == 1, (folder / MASK_FOLDER).is_dir()
    description = {
        "channel_names": {"0": "grey"} if grey else {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0} | ({"abnormal": 1} if masks else {}),
        "numTraining": sum(row.split == TRAIN for row in report.taken()),
        "file_ending": _FILE_ENDING,
        "modality": "picture",
    }
    write_description(folder, description)
