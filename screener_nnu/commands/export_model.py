"""`screener_export_model`: a trained model as one file, without names of cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.commands._run import run, user_path
from screener_nnu.detectors import STUDENT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="screener_export_model",
        description="Write plan, weights and a model card of a trained data set into one zip for "
        "other machines. Names of cases and what only training needs stay behind.",
    )
    parser.add_argument("dataset", help="number or name of the data set")
    parser.add_argument("-p", dest="plans", default="ScreenerPlans", metavar="PLANS")
    parser.add_argument("-o", dest="output", type=user_path, required=True, metavar="FILE.zip")
    parser.add_argument(
        "--detector", metavar="NAME", default=STUDENT, help="which detector of the plan [student]"
    )
    parser.add_argument(
        "--teacher",
        action="store_true",
        help="with the student, descriptor, condition and density as well",
    )
    parser.add_argument("--license", metavar="TEXT", help="terms of the weights, for the card")
    parser.add_argument("--description", default="", metavar="TEXT", help="for the card")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _export(arguments))


def _export(arguments: argparse.Namespace) -> None:
    from screener_nnu.errors import ScreenerError
    from screener_nnu.paths import set_default_folders

    if arguments.output.suffix.lower() != ".zip":
        raise ScreenerError(f"-o {arguments.output}: a model file ends in .zip")
    set_default_folders()
    from screener_nnu.files import file_sha256
    from screener_nnu.ownership import own_folder
    from screener_nnu.sharing.export import ExportRequest, export_model

    own_folder(arguments.output.parent).refuse_foreign([arguments.output])
    description = export_model(
        ExportRequest(
            arguments.dataset,
            arguments.plans,
            arguments.teacher,
            arguments.license,
            arguments.description,
            arguments.detector,
        ),
        arguments.output,
    )
    stages = [stage for stage, values in description["training"].items() if values["included"]]
    megabytes = arguments.output.stat().st_size / 1e6
    print(f"{arguments.output}: {', '.join(stages)}; {megabytes:.1f} MB")
    print(f"sha256 {file_sha256(arguments.output)}")
    if not arguments.license:
        print("the card says 'licence not stated': nobody knows what they may do with the weights")
