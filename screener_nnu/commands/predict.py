"""`screener_predict`: anomaly maps of scans."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from screener_nnu.commands._run import run

_COST_OF_FAST = (
    "--fast: tiles do not overlap. A scan that fits into one tile keeps its map; in larger ones "
    "the AUROC on synthetic anomalies fell by up to 0.02 (documentation/prediction_speed.md)"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Write the anomaly map (-log q, in nats) and the body mask of each scan in "
        "its own geometry. The distilled student is used unless --teacher is given."
    )
    parser.add_argument("-d", dest="dataset", required=True, help="data set the model learned from")
    parser.add_argument("-i", dest="input", type=Path, required=True, help="file, folder or series")
    parser.add_argument("-o", dest="output", type=Path, required=True)
    parser.add_argument("-p", dest="plans", default="ScreenerPlans", metavar="PLANS")
    parser.add_argument("-chk", dest="checkpoint", default=None, help="checkpoint of a student")
    parser.add_argument("--teacher", action="store_true", help="all three stages, not the student")
    parser.add_argument("--fast", action="store_true", help="tiles side by side, without overlap")
    parser.add_argument("--threshold", type=float, default=None, help="also write a mask (nats)")
    parser.add_argument("--overwrite", action="store_true", help="predict again what is there")
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default=None)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _predict(arguments))


def _predict(arguments: argparse.Namespace) -> None:
    from screener_nnu.errors import ScreenerError
    from screener_nnu.paths import set_default_folders

    set_default_folders()
    from screener_nnu.devices import choose_device
    from screener_nnu.inference.images import find_images
    from screener_nnu.inference.models import load_student, load_teacher
    from screener_nnu.inference.predict import Predictor, predict_files
    from screener_nnu.inference.volume import with_overlap
    from screener_nnu.scoring.student import Student
    from screener_nnu.scoring.teacher import Teacher

    images = find_images(arguments.input)
    device = choose_device(arguments.device)
    scorer: Teacher | Student
    if arguments.teacher:
        scorer, plan, statistics = load_teacher(arguments.dataset, arguments.plans, device)
    else:
        scorer, plan, statistics = load_student(
            arguments.dataset, arguments.plans, device, arguments.checkpoint
        )
    if arguments.fast:
        plan = with_overlap(plan, 0.0)
        print(_COST_OF_FAST)
    predictor = Predictor(scorer, plan, statistics["lowest"], device)
    skipped = predict_files(
        predictor, images, arguments.output, arguments.threshold, arguments.overwrite
    )
    print(f"{len(images) - len(skipped)} maps in {arguments.output}, {len(skipped)} scans skipped")
    if len(skipped) == len(images):
        raise ScreenerError("no scan could be used; the reasons stand above")
