"""`screener_calibrate`: what the scores of a trained model mean, from scans nobody trained on."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from screener_nnu.commands._cluster import add_cluster_options, cluster_of
from screener_nnu.commands._detector import add_model_options, chosen_model
from screener_nnu.commands._run import run, user_path
from screener_nnu.least_volume import MINIMUM_ML

if TYPE_CHECKING:
    from screener_nnu.calibration.run import Calibrator


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="screener_calibrate",
        description="Measure on held-out scans which percentile a score is, how high the scores of "
        "a whole scan are, and which threshold gives how many false positives. Training does this "
        "at its end; this command does it again, or on other scans. Without --images: the plan's "
        "validation scans.",
    )
    add_model_options(parser)
    parser.add_argument(
        "--images",
        type=user_path,
        metavar="DIR",
        help="scans to calibrate on, with as little pathology as can be had; with --masks "
        "annotated ones",
    )
    parser.add_argument(
        "--masks",
        type=user_path,
        metavar="DIR",
        help="annotations: adds thresholds for Dice and recall",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing: compare false positives asked for and obtained on --images",
    )
    parser.add_argument("--min_volume_ml", type=float, help="least volume of a false positive")
    parser.add_argument(
        "--max_scans",
        type=int,
        help="scans at most (calibration: the plan's setting; --check: all)",
    )
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default=None)
    parser.add_argument("-np", dest="processes", type=int, default=0, help="workers of --cluster")
    add_cluster_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _calibrate(arguments))


def _calibrate(arguments: argparse.Namespace) -> None:
    from screener_nnu.paths import set_default_folders

    _refuse_contradictions(arguments)
    set_default_folders()
    with cluster_of(arguments):
        _measure(arguments)


def _measure(arguments: argparse.Namespace) -> None:
    from screener_nnu.calibration.report import describe
    from screener_nnu.calibration.run import Calibrator
    from screener_nnu.devices import choose_device

    calibrator = Calibrator(
        chosen_model(arguments), choose_device(arguments.device), arguments.max_scans
    )
    volume = arguments.min_volume_ml or MINIMUM_ML
    if arguments.check:
        _check(calibrator, arguments.images, volume)
        return
    if arguments.masks is not None:
        made = calibrator.on_annotated(arguments.images, arguments.masks)
    elif arguments.images is not None:
        made = calibrator.on_images(arguments.images)
    else:
        made = calibrator.on_validation_scans()
    print("\n".join(describe(made, volume)))
    print(f"\nwritten: {calibrator.file}")


def _refuse_contradictions(arguments: argparse.Namespace) -> None:
    from screener_nnu.errors import ScreenerError

    if arguments.images is None and (arguments.masks is not None or arguments.check):
        option = "--check" if arguments.check else "--masks"
        raise ScreenerError(f"{option} needs scans: name their folder with --images")
    if arguments.check and arguments.masks is not None:
        raise ScreenerError("--check counts false positives and reads no --masks: leave one out")
    if arguments.max_scans is not None and arguments.max_scans < 1:
        raise ScreenerError(f"--max_scans {arguments.max_scans}: one scan is the least")
    if arguments.min_volume_ml is not None and not arguments.min_volume_ml > 0:
        raise ScreenerError(f"--min_volume_ml {arguments.min_volume_ml}: give a volume above 0")


def _check(calibrator: Calibrator, images: Path, volume: float) -> None:
    from screener_nnu.calibration.report import compare
    from screener_nnu.calibration.store import load_calibration
    from screener_nnu.errors import ScreenerError

    calibration = load_calibration(calibrator.model)
    if calibration is None:
        raise ScreenerError(
            f"nothing to check yet; run\n    {calibrator.model.command('calibrate')}"
        )
    print("\n".join(compare(calibration, calibrator.check(images, calibration), volume)))
