"""`screener_import`: a DICOM export, or a folder of pictures, as an nnU-Net raw dataset."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from screener_nnu.commands._cluster import add_cluster_options, add_part_options, cluster_of
from screener_nnu.commands._run import run, user_path

if TYPE_CHECKING:
    from screener_nnu.importing.contents import Pictures
    from screener_nnu.importing.request import ImportRequest

_FOR_SCANS = ("min_slices", "max_thickness", "include", "exclude", "keep_names", "parts")
_FOR_PICTURES = ("colour", "group_regex")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Turn the CT series of a DICOM export (a folder of any depth, or a zip) into "
        "an nnU-Net raw dataset of unlabelled scans, or a folder of pictures (PNG, JPG, BMP, TIFF; "
        "DICOM CR, DX, MG) into one of normal pictures and, where the layout tells, test pictures. "
        "Every series or picture is taken or skipped with a reason. A killed run goes on where it "
        "stopped."
    )
    parser.add_argument(
        "-i", dest="input", type=user_path, required=True, help="folder, zip of DICOM, or CSV"
    )
    parser.add_argument("-d", dest="dataset", type=int, required=True, help="number, such as 510")
    parser.add_argument("--name", required=True, help="name of the dataset, such as MyCT")
    parser.add_argument("--min_slices", type=int, default=20, help="skip shorter volumes (20)")
    parser.add_argument(
        "--max_thickness", type=float, default=0.0, metavar="MM", help="skip thicker slices"
    )
    parser.add_argument("--include", default="", metavar="REGEX", help="of Series Description")
    parser.add_argument("--exclude", default="", metavar="REGEX", help="of Series Description")
    parser.add_argument(
        "--keep_names",
        action="store_true",
        help="patient ID, date, description and folder in case names, lines and report",
    )
    parser.add_argument(
        "--colour",
        choices=("auto", "grey", "rgb"),
        default="auto",
        help="of pictures: as they are, all alike (auto), or converted",
    )
    parser.add_argument(
        "--group_regex",
        default="",
        metavar="REGEX",
        help="of pictures: its first group in the path is the patient",
    )
    parser.add_argument("--dry_run", action="store_true", help="list only, write nothing")
    parser.add_argument(
        "-np", dest="processes", type=int, default=2, help="series or pictures at a time (2)"
    )
    add_part_options(parser, "of scans: import")
    add_cluster_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _import(arguments))


def _import(arguments: argparse.Namespace) -> None:
    from screener_nnu.importing.contents import find_pictures
    from screener_nnu.importing.request import ImportRequest
    from screener_nnu.paths import set_default_folders

    set_default_folders()
    request = ImportRequest(
        source=arguments.input,
        number=arguments.dataset,
        name=arguments.name,
        min_slices=arguments.min_slices,
        max_thickness=arguments.max_thickness,
        include=arguments.include,
        exclude=arguments.exclude,
        keep_names=arguments.keep_names,
        processes=arguments.processes,
        dry_run=arguments.dry_run,
        colour=arguments.colour,
        group_regex=arguments.group_regex,
        part=arguments.part,
        parts=arguments.parts,
    )
    request.check()
    pictures = find_pictures(request.source)
    with cluster_of(arguments):
        if pictures is None:
            _refuse_options(request, _FOR_PICTURES, "pictures", "scans")
            _import_scans(request)
        else:
            _refuse_options(request, _FOR_SCANS, "scans", "pictures")
            _import_pictures(request, pictures)
    if not request.dry_run:
        print(f"{request.folder}\nnext: screener_plan_and_preprocess -d {request.number}")


def _import_scans(request: ImportRequest) -> None:
    from collections import Counter

    from screener_nnu.errors import ScreenerError
    from screener_nnu.importing.dataset import import_dataset
    from screener_nnu.importing.report import SKIPPED

    counts: Counter[str] = Counter()
    for row in import_dataset(request):
        counts[row.status] += 1
        print(row.line(), flush=True)
    if not counts and request.parts == 1:
        raise ScreenerError(
            f"no DICOM image in {request.source}: give the folder or the zip of "
            "an export, or a folder of pictures"
        )
    _print_counts(counts)
    if counts.keys() == {SKIPPED} and request.parts == 1:
        raise ScreenerError("no series could be used; the reasons stand above")


def _import_pictures(request: ImportRequest, pictures: Pictures) -> None:
    from collections import Counter

    from screener_nnu.importing.pictures import import_pictures

    counts: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    try:
        for row in import_pictures(request, pictures):
            counts[row.status] += 1
            notes.update(filter(None, row.notes.split("; ")))
            # There may be 100,000 of which there is nothing to say.
            if row.reason:
                print(row.line(), flush=True)
    finally:
        for note, number in sorted(notes.items()):
            print(f"{number} picture{'s' * (number != 1)}: {note}")
        if counts:
            _print_counts(counts)


def _print_counts(counts: Mapping[str, int]) -> None:
    print(", ".join(f"{number} {status}" for status, number in sorted(counts.items())))


def _refuse_options(request: ImportRequest, options: Sequence[str], kind: str, there: str) -> None:
    """Refuses options that would do nothing.

    Raises:
        ScreenerError: one was given.
    """
    from dataclasses import fields

    from screener_nnu.errors import ScreenerError

    defaults = {field.name: field.default for field in fields(request)}
    for option in options:
        if getattr(request, option) != defaults[option]:
            raise ScreenerError(
                f"--{option} is for {kind}, and {request.source} holds {there}: leave it out"
            )
