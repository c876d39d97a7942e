"""`screener_evaluate`: figures of anomaly maps beside baselines without learning."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from screener_nnu.commands._run import run, user_path
from screener_nnu.errors import ScreenerError
from screener_nnu.least_volume import MINIMUM_ML

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="screener_evaluate",
        description="Evaluates anomaly maps against annotations, beside baselines that learn "
        "nothing, or merges evaluations of different cases. Writes summary.json, cases.csv, "
        "pooled.csv, curves.png, bins.npz and histograms/METHOD/CASE.npz. A stopped evaluation "
        "goes on where it was.",
    )
    parser.add_argument(
        "-i",
        dest="maps",
        nargs="+",
        metavar="MAPS",
        help="folder of maps CASE.nii.gz with body masks CASE_body.nii.gz, or several as "
        "name=FOLDER to stand in one table",
    )
    parser.add_argument(
        "-r", dest="masks", type=user_path, help="folder of annotations CASE.nii.gz"
    )
    parser.add_argument(
        "--merge",
        type=user_path,
        nargs="+",
        metavar="FOLDER",
        help="instead of -i and -r: finished evaluations of different cases over equal bins, "
        "whose stored histograms become one evaluation",
    )
    parser.add_argument(
        "--images",
        type=user_path,
        help="folder of CT images in HU, CASE_0000.nii.gz or CASE.nii.gz, for the baselines",
    )
    parser.add_argument(
        "-d", dest="dataset", help="pre-training data set (number or name), for the rarity of HU"
    )
    parser.add_argument(
        "-o",
        dest="out",
        type=user_path,
        help="output folder (default: MAPS/evaluation); required with --merge",
    )
    _add_options(parser)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Arguments that are not files."""
    parser.add_argument(
        "--labels",
        type=int,
        nargs="+",
        help="annotation values that are pathology (default: all above 0); other values count "
        "as normal",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        help="score, chosen elsewhere: Dice of the voxels above it, those of screener_predict "
        "--threshold (default: the best one on these cases, which is optimistic)",
    )
    parser.add_argument(
        "--bins",
        type=user_path,
        metavar="FILE",
        help="bins.npz of another evaluation, so that both can be merged",
    )
    parser.add_argument(
        "--protocol",
        choices=("full", "paper"),
        default="full",
        help="paper: report as well AUROC on up to 1000 lesion and 1000 other voxels drawn from "
        "each scan",
    )
    parser.add_argument(
        "--min_volume",
        type=float,
        default=1000 * MINIMUM_ML,
        metavar="MM3",
        help="FROC: least volume of a detection and of a lesion in mm^3 (%(default)g)",
    )
    parser.add_argument(
        "--no_bootstrap", action="store_true", help="leave out the intervals over cases"
    )
    parser.add_argument(
        "-np", dest="processes", type=int, default=2, help="cases read at the same time (2)"
    )


def main(argv: list[str] | None = None) -> None:
    """Entry point of `screener_evaluate`."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.merge:
        if arguments.maps or arguments.masks or arguments.bins or arguments.images:
            parser.error("--merge reads stored histograms: leave out -i, -r, --images and --bins")
        if not arguments.out:
            parser.error("--merge needs -o")
    elif not (arguments.maps and arguments.masks):
        parser.error("-i and -r are required, or --merge")
    if not arguments.min_volume > 0:
        parser.error("--min_volume must be above zero")
    run(lambda: _merge(arguments) if arguments.merge else _evaluate(arguments))


def _merge(arguments: argparse.Namespace) -> None:
    # Imported here so that --help and wrong arguments are answered at once.
    from screener_nnu.evaluation.merging import merge_evaluations
    from screener_nnu.evaluation.report import own_evaluation, write_report

    own_evaluation(arguments.out)
    evaluation = merge_evaluations(
        arguments.merge,
        arguments.out,
        arguments.threshold,
        bootstrap=not arguments.no_bootstrap,
        protocol=arguments.protocol,
    )
    settings = {
        "merged": [str(folder) for folder in arguments.merge],
        "threshold": arguments.threshold,
    }
    print(write_report(evaluation, arguments.out, settings))
    logger.info("written to %s", arguments.out)


def _evaluate(arguments: argparse.Namespace) -> None:
    methods = parse_methods(arguments.maps)
    from screener_nnu.evaluation.baselines import training_histogram

    histogram = training_histogram(arguments.dataset) if arguments.dataset else None
    if arguments.images is None:
        logger.info("no --images: baselines are left out")
    elif histogram is None:
        logger.info("no -d: the rarity of HU in the training set is left out")
    # Imported here so that a wrong data set is answered at once.
    from screener_nnu.evaluation.evaluate import evaluate_maps
    from screener_nnu.evaluation.report import own_evaluation, write_report

    chosen = arguments.threshold
    out = arguments.out or next(iter(methods.values())) / "evaluation"
    own_evaluation(out)
    evaluation = evaluate_maps(
        methods,
        arguments.masks,
        arguments.images,
        histogram,
        arguments.labels,
        dict.fromkeys(methods, chosen) if chosen is not None else None,
        bootstrap=not arguments.no_bootstrap,
        processes=arguments.processes,
        folder=out,
        bins=arguments.bins,
        min_volume_mm3=arguments.min_volume,
        protocol=arguments.protocol,
    )
    print(write_report(evaluation, out, _settings(arguments, methods)))
    logger.info("written to %s", out)


def _settings(arguments: argparse.Namespace, methods: dict[str, Path]) -> dict[str, Any]:
    """What was evaluated and how, for the summary."""
    return {
        "maps": {name: str(folder) for name, folder in methods.items()},
        "masks": str(arguments.masks),
        "images": str(arguments.images) if arguments.images else None,
        "dataset": arguments.dataset,
        "labels": arguments.labels,
        "threshold": arguments.threshold,
        "bins": str(arguments.bins) if arguments.bins else None,
        "min_volume_mm3": arguments.min_volume,
    }


def parse_methods(entries: list[str]) -> dict[str, Path]:
    """Reads `-i`: one folder, which is named `screener`, or several `name=FOLDER`.

    Raises:
        ScreenerError: when several folders have no name, or a name stands twice.
    """
    if len(entries) == 1 and ("=" not in entries[0] or user_path(entries[0]).is_dir()):
        return {"screener": user_path(entries[0])}
    methods: dict[str, Path] = {}
    for entry in entries:
        name, separator, folder = entry.partition("=")
        if not (name and separator and folder):
            raise ScreenerError(f"-i {entry}: several folders need names, name=FOLDER")
        if name in methods:
            raise ScreenerError(f"-i {entry}: the name {name} stands twice")
        methods[name] = user_path(folder)
    return methods
