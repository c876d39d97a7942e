"""`screener_compare`: detectors of a plan, or starts of fine-tuning, each within a budget."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from screener_nnu.commands._finetuning import positive
from screener_nnu.commands._run import run, user_path
from screener_nnu.commands.lowshot import add_fine_tuning_budget, benchmark
from screener_nnu.commands.lowshot import build_parser as lowshot_parser
from screener_nnu.errors import ScreenerError

#: What `--kinds` stands for.
KINDS = {"painted": ("painted",), "altered": ("altered",), "both": ("painted", "altered")}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Train detectors of a plan within a budget, judge them on synthetic anomalies "
        "in held-out scans and write one table: each with the first, with intervals and costs. "
        "Stages are shared; those that are finished stay, and a killed run goes on. Writes "
        "detectors.md, .csv, .json and .png, and detectors_slices.png. With --starts, the starts "
        "of fine-tuning are trained within the same budget and compared on few labelled cases, "
        "as screener_lowshot does.",
    )
    add_comparison_arguments(parser)
    parser.add_argument(
        "--detectors",
        nargs="+",
        default=[],
        metavar="NAME",
        help="such as teacher, student, padim, autoencoder; each is compared with the first",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="minutes of steps of each detector on this machine, all its stages together",
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="steps of every stage, in place of minutes"
    )
    parser.add_argument(
        "--seeds", type=int, default=1, help="runs of each detector, repetitions of starts (1)"
    )
    parser.add_argument(
        "--kinds",
        choices=list(KINDS),
        default="painted",
        help="family of anomalies: painted, those that training may choose by, or altered, which "
        "no detector is trained on (painted)",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=user_path,
        help="default: ablation_PLANS_USE among the results, with the budget in its name; of "
        "starts, as screener_lowshot has it",
    )
    group = parser.add_argument_group("starts of fine-tuning")
    group.add_argument(
        "--starts",
        nargs="+",
        default=[],
        metavar="START",
        help="such as scratch, student, descriptor, masked_autoencoder",
    )
    group.add_argument("-d", dest="labelled", metavar="DATASET", help="labelled data set")
    group.add_argument(
        "--num_cases", type=positive, nargs="+", default=[5], help="sizes of the training set [5]"
    )
    add_fine_tuning_budget(group.add_argument)
    return parser


def add_comparison_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every comparison on synthetic anomalies is told: plan, scans and device."""
    parser.add_argument("dataset", help="number or name of the data set")
    parser.add_argument("-p", dest="plans", default="ScreenerPlans", metavar="PLANS")
    parser.add_argument(
        "--use",
        choices=["test", "validation"],
        default="test",
        help="scans of the split that get anomalies; choose settings on validation (test)",
    )
    parser.add_argument(
        "--num_scans",
        type=positive,
        metavar="N",
        help="take N of these scans at most, spread evenly over their names (all)",
    )
    parser.add_argument("--anomaly_seed", type=int, default=1)
    parser.add_argument("-device", choices=["cuda", "cpu", "mps"], default=None)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if not arguments.detectors and not arguments.starts:
        parser.error("nothing to compare: name --detectors, --starts or both")
    if bool(arguments.starts) != bool(arguments.labelled):
        parser.error("--starts are compared on a labelled data set, -d: give both or neither")
    run(lambda: _compare_all(arguments))


def _compare_all(arguments: argparse.Namespace) -> None:
    if arguments.detectors:
        compare(arguments, arguments.kinds, arguments.steps, arguments.minutes)
    if arguments.starts:
        _compare_starts(arguments)


def _compare_starts(arguments: argparse.Namespace) -> None:
    """Trains the starts within the budget, and fine-tunes from each on few cases."""
    from screener_nnu.paths import dataset_name, set_default_folders

    set_default_folders()
    from screener_nnu.ablation.budget import Budget
    from screener_nnu.devices import choose_device
    from screener_nnu.lowshot.pretraining import pretrain_starts

    dataset = dataset_name(arguments.dataset)
    budget, device = Budget(arguments.steps, arguments.minutes), choose_device(arguments.device)
    made = pretrain_starts(dataset, arguments.plans, arguments.starts, budget, device)
    words = [
        "-d",
        arguments.labelled,
        "--source",
        dataset,
        "-p",
        made.plans,
        "-device",
        device.type,
    ]
    words += ["--init", *made.starts, "--num_cases", *map(str, arguments.num_cases)]
    for name in ("folds", "seeds", "epochs", "iterations"):
        words += [f"--{name}", str(getattr(arguments, name))]
    words += ["--report", str(arguments.output)] if arguments.output else []
    benchmark(lowshot_parser().parse_args(words), made.notes)
    if made.failures:
        name, why = next(iter(made.failures.items()))
        raise ScreenerError(
            f"{len(made.failures)} starts could not be trained (first: {name}: {why}); the same "
            "command tries them again"
        )


def compare(
    arguments: argparse.Namespace,
    kinds: str = "painted",
    steps: int | None = None,
    minutes: float | None = None,
) -> None:
    """Compares detectors and prints the tables.

    Args:
        arguments: those that `screener_ablate` has too.
        kinds: of `KINDS`.
        steps: of every stage.
        minutes: of every detector.
    """
    from screener_nnu.paths import plan_file, results_folder, set_default_folders

    set_default_folders()
    from screener_nnu.ablation.budget import Budget
    from screener_nnu.ablation.compare import Request, compare_detectors
    from screener_nnu.ablation.compare_report import report_files
    from screener_nnu.ablation.report import own_report
    from screener_nnu.devices import choose_device
    from screener_nnu.plans import read_plan

    read_plan(plan_file(arguments.dataset, arguments.plans))
    budget = Budget(steps, minutes)
    request = Request(
        arguments.dataset,
        arguments.plans,
        arguments.detectors,
        arguments.use,
        arguments.anomaly_seed,
        KINDS[kinds],
        budget,
        arguments.seeds,
        arguments.num_scans,
    )
    words = ["ablation", arguments.plans, *([budget.name] if budget.name else []), arguments.use]
    folder = arguments.output or results_folder(arguments.dataset) / "_".join(words)
    own_report(folder, report_files(folder))
    print(compare_detectors(request, choose_device(arguments.device), folder))
