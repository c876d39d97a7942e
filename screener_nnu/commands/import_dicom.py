"""`screener_import`: an export of a picture archive as an nnU-Net raw dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.commands._run import run, user_path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Turn the CT series of a DICOM export (a folder of any depth, or a zip) into "
        "an nnU-Net raw dataset of unlabelled scans. Every series is taken or skipped with a "
        "reason. A killed run goes on where it stopped."
    )
    parser.add_argument("-i", dest="input", type=user_path, required=True, help="folder or zip")
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
    parser.add_argument("--dry_run", action="store_true", help="list only, write nothing")
    parser.add_argument("-np", dest="processes", type=int, default=2, help="series at a time (2)")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _import(arguments))


def _import(arguments: argparse.Namespace) -> None:
    from collections import Counter

    from screener_nnu.errors import ScreenerError
    from screener_nnu.importing.dataset import import_dataset
    from screener_nnu.importing.report import SKIPPED
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
    )
    counts: Counter[str] = Counter()
    for row in import_dataset(request):
        counts[row.status] += 1
        print(row.line(), flush=True)
    if not counts:
        raise ScreenerError(
            f"no DICOM image in {arguments.input}: give the folder or the zip of an export"
        )
    print(", ".join(f"{number} {status}" for status, number in sorted(counts.items())))
    if counts.keys() == {SKIPPED}:
        raise ScreenerError("no series could be used; the reasons stand above")
    if not request.dry_run:
        print(f"{request.folder}\nnext: screener_plan_and_preprocess -d {request.number}")
