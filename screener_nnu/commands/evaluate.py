"""`screener_evaluate`: figures of anomaly maps beside baselines without learning."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screener_nnu.commands._cluster import cluster_of
from screener_nnu.commands._evaluating import build_parser
from screener_nnu.commands._run import run, user_path
from screener_nnu.errors import ScreenerError

if TYPE_CHECKING:
    from screener_nnu.evaluation.baselines import HuHistogram

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> None:
    """Entry point of `screener_evaluate`."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.merge:
        if arguments.maps or arguments.masks or arguments.bins or arguments.images:
            parser.error("--merge reads stored histograms: leave out -i, -r, --images and --bins")
        if arguments.cases:
            parser.error("--merge reads stored histograms: leave out --cases")
        if not arguments.out:
            parser.error("--merge needs -o")
    elif not (arguments.maps and (arguments.masks or arguments.cases)):
        parser.error("-i and -r are required, or --merge, or -i and --cases")
    if arguments.threshold_from and not arguments.cases:
        parser.error("--threshold_from is of whole cases: give --cases as well")
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
    from screener_nnu.evaluation.report import own_evaluation

    histogram = _histogram(arguments) if arguments.masks else None
    out = arguments.out or next(iter(methods.values())) / "evaluation"
    own_evaluation(out)
    tables = []
    # Whole cases come first, as a wrong table should not be noticed after hours of counting.
    if arguments.cases:
        tables.append(_evaluate_cases(arguments, methods, out))
    if arguments.masks:
        with cluster_of(arguments):
            tables.insert(0, _evaluate_voxels(arguments, methods, histogram, out))
    print("\n\n".join(tables))
    logger.info("written to %s", out)


def _histogram(arguments: argparse.Namespace) -> HuHistogram | None:
    from screener_nnu.evaluation.baselines import training_histogram

    histogram = training_histogram(arguments.dataset) if arguments.dataset else None
    if arguments.images is None:
        logger.info("no --images: baselines are left out")
    elif histogram is None:
        logger.info("no -d: the rarity of HU in the training set is left out")
    return histogram


def _evaluate_cases(arguments: argparse.Namespace, methods: dict[str, Path], out: Path) -> str:
    from screener_nnu.evaluation.case_evaluation import evaluate_cases
    from screener_nnu.evaluation.case_report import write_case_report

    given = (arguments.cases, arguments.threshold_from, arguments.images)
    evaluation = evaluate_cases(methods, *given, bootstrap=not arguments.no_bootstrap)
    names = ("cases", "threshold_from", "images")
    settings = {name: path and str(path) for name, path in zip(names, given, strict=True)}
    return write_case_report(evaluation, out, {"maps": _shown(methods), **settings})


def _evaluate_voxels(
    arguments: argparse.Namespace,
    methods: dict[str, Path],
    histogram: HuHistogram | None,
    out: Path,
) -> str:
    # Imported here so that a wrong data set is answered at once.
    from screener_nnu.evaluation.evaluate import evaluate_maps
    from screener_nnu.evaluation.report import write_report

    chosen = arguments.threshold
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
    return write_report(evaluation, out, _settings(arguments, methods))


def _settings(arguments: argparse.Namespace, methods: dict[str, Path]) -> dict[str, Any]:
    """What was evaluated and how, for the summary."""
    return {
        "maps": _shown(methods),
        "masks": str(arguments.masks),
        "images": str(arguments.images) if arguments.images else None,
        "dataset": arguments.dataset,
        "labels": arguments.labels,
        "threshold": arguments.threshold,
        "bins": str(arguments.bins) if arguments.bins else None,
        "min_volume_mm3": arguments.min_volume,
    }


def _shown(methods: dict[str, Path]) -> dict[str, str]:
    return {name: str(folder) for name, folder in methods.items()}


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
