"""`screener_plan_and_preprocess`: fingerprint, plan and cases of one or several raw data sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from screener_nnu.commands._cluster import add_cluster_options, add_part_options, cluster_of
from screener_nnu.commands._run import run, user_path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Fingerprint unlabelled CT, MR or pictures, plan every stage and preprocess "
        "the images. A killed run goes on where it stopped."
    )
    parser.add_argument("-d", dest="datasets", nargs="+", required=True, help="numbers or names")
    parser.add_argument(
        "--pool",
        nargs=2,
        metavar=("NUMBER", "NAME"),
        help="pool the data sets as a pre-training set of its own, for instance 901 HeadTrunk",
    )
    parser.add_argument("-np", dest="processes", type=int, default=0, help="default: all cores")
    parser.add_argument("--preset", choices=["paper", "balanced", "cpu"], default="balanced")
    parser.add_argument("--memory_gb", type=float, default=None, help="device memory to plan for")
    parser.add_argument(
        "--width",
        type=int,
        default=None,
        help="channels of the UNet's first stage in place of the preset's: half of them take a "
        "quarter of the arithmetic",
    )
    parser.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        default=None,
        metavar=("Z", "Y", "X"),
        help="voxel size in mm in place of the planned one, for a network that was made for it",
    )
    parser.add_argument(
        "--modality",
        choices=["ct", "mr", "picture"],
        default=None,
        help="of the images; by default what dataset.json says, or the values of the images",
    )
    parser.add_argument(
        "--picture_size",
        type=int,
        nargs=2,
        default=None,
        metavar=("ROWS", "COLUMNS"),
        help="pixels that every picture is resized to, in place of the planned ones",
    )
    parser.add_argument(
        "--keep_aspect",
        action="store_true",
        help="resize pictures to at most that size, rows and columns by one factor",
    )
    parser.add_argument("--num_test", type=int, default=0, help="scans kept for evaluation")
    parser.add_argument(
        "--normal_cases",
        type=user_path,
        default=None,
        metavar="FILE",
        help="list of cases that are known to be normal, a name a line, for methods that take "
        "what they learn from as normal",
    )
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("-p", dest="plans", default="ScreenerPlans", metavar="PLANS")
    parser.add_argument(
        "-o",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting in place of the planned one, for instance preprocessing.equalisation=none; "
        "give such a plan a name with -p",
    )
    parser.add_argument("--no_preprocessing", action="store_true", help="fingerprint and plan only")
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="write nothing: say what time, disk and memory all of it will take here, the training "
        "of the student included, from a few scans and steps",
    )
    parser.add_argument(
        "-device", choices=["cuda", "cpu", "mps"], default=None, help="of --estimate, to train on"
    )
    add_part_options(parser, "preprocess")
    parser.add_argument(
        "--verify_dataset_integrity",
        action="store_true",
        help="compare the content of every image with what an earlier run read, whatever its time "
        "says, and of every prepared case with what was written",
    )
    add_cluster_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _parser().parse_args(argv)
    run(lambda: _plan_and_preprocess(arguments))


def _plan_and_preprocess(arguments: argparse.Namespace) -> None:
    from screener_nnu.paths import set_default_folders

    set_default_folders()
    with cluster_of(arguments):
        _run_stages(arguments)


def _pool(number: str, name: str) -> tuple[int, str]:
    """Number and name of a pool, which must not share its number with another data set."""
    from screener_nnu.errors import ScreenerError
    from screener_nnu.paths import new_dataset_name

    if not (number.isascii() and number.isdigit()):
        raise ScreenerError(f"--pool {number} {name}: the first word is a number, such as 901")
    new_dataset_name(int(number), name)
    return int(number), name


def _estimate(arguments: argparse.Namespace, processes: int, request: dict[str, Any]) -> None:
    from screener_nnu.devices import choose_device
    from screener_nnu.estimate.estimate import estimate
    from screener_nnu.estimate.report import describe

    device = choose_device(arguments.device)
    lines = estimate(
        arguments.datasets,
        processes,
        request,
        device,
        arguments.overrides,
        arguments.modality,
    )
    print(describe(lines))


def _run_stages(arguments: argparse.Namespace) -> None:
    import os

    from screener_nnu.planners.run import plan_dataset, preprocess_planned

    processes = arguments.processes or os.cpu_count() or 1
    request: dict[str, Any] = {
        "preset": arguments.preset,
        "memory_gb": arguments.memory_gb,
        "width": arguments.width,
        "spacing": None if arguments.spacing is None else tuple(arguments.spacing),
        "picture_size": None if arguments.picture_size is None else tuple(arguments.picture_size),
        "keep_aspect": arguments.keep_aspect,
        "num_test": arguments.num_test,
        "seed": arguments.seed,
        "plans_name": arguments.plans,
    }
    pool = _pool(*arguments.pool) if arguments.pool else None
    if arguments.estimate:
        _estimate(arguments, processes, request)
        return
    dataset = plan_dataset(
        arguments.datasets,
        pool,
        processes,
        request,
        verify=arguments.verify_dataset_integrity,
        overrides=arguments.overrides,
        modality=arguments.modality,
        normal_cases=arguments.normal_cases,
    )
    if not arguments.no_preprocessing:
        preprocess_planned(
            dataset,
            arguments.plans,
            processes,
            arguments.part,
            arguments.parts,
            arguments.verify_dataset_integrity,
        )
