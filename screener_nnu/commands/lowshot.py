"""`screener_lowshot`: does a start help when few cases are labelled?"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screener_nnu.commands._finetuning import (
    check_before_writing,
    check_settings_used,
    fine_tuning_settings,
    positive,
    print_transfer,
    require_writable,
    worker_processes,
)
from screener_nnu.commands._run import run as run_command
from screener_nnu.commands._run import user_path
from screener_nnu.detectors import DETECTORS
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import DEFAULT_PLANS_NAME, StockPlan
from screener_nnu.starts import METHODS

if TYPE_CHECKING:
    from screener_nnu.finetuning.dataset import LabelledDataset
    from screener_nnu.finetuning.splits import Fold
    from screener_nnu.finetuning.starts import Start
    from screener_nnu.lowshot.design import Design, LowShotRun, Setting


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="screener_lowshot",
        description="Trains stock nnU-Net on few labelled cases from several starts, in a repeated "
        "cross-validation, and compares them case by case. Finished trainings stay, a killed one "
        "goes on. Writes lowshot.md, .json, .csv and .png.",
    )
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="labelled dataset, name or number")
    add("--source", required=True, help="pre-trained dataset, name or number")
    add("--num_cases", required=True, type=positive, nargs="+", help="sizes of the training set")
    add_fine_tuning_budget(add)
    add("--seeds", type=positive, default=1, help="repetitions with other training cases [1]")
    add(
        "--init",
        nargs="+",
        default=["scratch", "student"],
        metavar="START",
        help="scratch, student, descriptor, pretext, shuffled, start, "
        f"{', '.join(METHODS)} or a checkpoint file, each [scratch student]; with :tuned at its "
        "end it is trained by FineTuningTrainer",
    )
    add("--nsd_tolerance", type=float, default=2.0, metavar="MM", help="of the surface Dice [2]")
    add("-p", default=DEFAULT_PLANS_NAME, metavar="PLANS", help="plan of the source")
    fine_tuning_settings(add)
    add(
        "--map",
        choices=list(DETECTORS),
        help="beside the central ball, report the best threshold on the map of a detector of the "
        "source",
    )
    add(
        "--report",
        type=user_path,
        metavar="FOLDER",
        help="of the report [lowshot_... among the results]",
    )
    add("-device", choices=("cuda", "cpu", "mps"), help="where to train [cuda where there is one]")
    add("-np", type=positive, help="worker processes [8, at most one a core]")
    add("--report_only", action="store_true", help="train nothing, report what is finished")
    add("--restart", action="store_true", help="delete these trainings and train all anew")
    return parser


def add_fine_tuning_budget(add: Callable[..., Any]) -> None:
    """Arguments for the folds of a benchmark and the length of its trainings."""
    add("--folds", type=int, default=5, help="folds of the cross-validation [5]")
    add("--epochs", type=positive, default=1000, help="epochs [1000, as nnU-Net]")
    add("--iterations", type=positive, default=250, help="iterations an epoch [250, as nnU-Net]")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = build_parser().parse_args(arguments)
    run_command(lambda: benchmark(args))


def benchmark(args: argparse.Namespace, notes: Sequence[str] = ()) -> None:
    """Trains and reports what the arguments of the command ask for.

    Args:
        args: of `build_parser`.
        notes: sentences for the report about how the starts were made.
    """
    from screener_nnu.paths import dataset_name, results_folder, set_default_folders

    set_default_folders()
    worker_processes(args.np)
    # After the environment is set: nnU-Net reads it when imported.
    from screener_nnu.finetuning.dataset import read_labelled_dataset
    from screener_nnu.finetuning.image_kind import ImageKind
    from screener_nnu.finetuning.plan import read_source_plan, target_stem
    from screener_nnu.finetuning.starts import find_start
    from screener_nnu.lowshot.benchmark import report
    from screener_nnu.lowshot.design import draw_cases, plan_runs
    from screener_nnu.lowshot.report import refuse_foreign_report
    from screener_nnu.lowshot.train import changed_runs

    design = _design(args)
    source = dataset_name(args.source)
    source_plan = read_source_plan(source, args.p)
    dataset = read_labelled_dataset(args.d, ImageKind.of(source_plan))
    found = [find_start(word, source, args.p, source_plan, args.settings) for word in args.init]
    check_settings_used(found, args.settings)
    _refuse_budget(args.settings)
    # One file under two paths is one start.
    starts = list({start.name: start for start in found}.values())
    plans = _target_plans(design, starts, source_plan, source, dataset)
    name = f"lowshot_{target_stem(source, args.p)}_{design.epochs}x{design.iterations}"
    folder = args.report or results_folder(dataset.name) / name
    require_writable({"--report": folder})
    refuse_foreign_report(folder)
    drawn = draw_cases(dataset.folder, dataset.cases, design)
    every_plan = [plan for made in plans.values() for plan in made]
    if not args.report_only:
        for start in starts:
            print_transfer(start, plans[start][0], dataset.dataset_json)
        processes = worker_processes(args.np)
        check_before_writing(dataset, every_plan, _parts(drawn), processes, args.restart)
    maps, lost = _maps(args, dataset, source)
    names = {start: [plan.name for plan in made] for start, made in plans.items()}
    configuration = source_plan.configuration_name
    runs = plan_runs(dataset.name, dataset.folder, dataset.cases, design, names, configuration)
    failures = changed_runs(runs) if args.report_only else _train(runs, every_plan, dataset, args)
    settings = {**_settings(args, design, dataset, source, starts), "notes": list(notes)}
    print(report(dataset, runs, failures | lost, settings, folder, maps))
    print(f"written to {folder}")
    if failures:
        raise ScreenerError(
            f"{len(failures)} of {len(runs)} trainings do not count (listed in {folder}); the same "
            "command tries them again"
        )


def _refuse_budget(settings: Sequence[str]) -> None:
    """All starts get the same budget, that of the command."""
    for word in settings:
        key = word.partition("=")[0]
        if key in ("epochs", "iterations"):
            raise ScreenerError(f"the budget is the same for all starts: --{key}, not -o {word}")


def _design(args: argparse.Namespace) -> Design:
    from screener_nnu.lowshot.design import Design

    if not 0 <= args.nsd_tolerance < math.inf:
        raise ScreenerError("--nsd_tolerance is a finite distance in mm and may not be negative")
    if args.report_only and args.restart:
        raise ScreenerError("--report_only trains nothing: leave --restart out")
    sizes = tuple(sorted(set(args.num_cases)))
    return Design(sizes, args.folds, args.seeds, args.epochs, args.iterations)


def _target_plans(
    design: Design,
    starts: Sequence[Start],
    source_plan: StockPlan,
    source: str,
    dataset: LabelledDataset,
) -> dict[Start, list[StockPlan]]:
    """The plan of each start and seed; all share their cases."""
    from screener_nnu.finetuning.plan import target_plan

    reader = dataset.reader
    return {
        start: [
            target_plan(
                source_plan,
                source=source,
                target=dataset.name,
                start=design.plan_suffix(start.name, seed),
                reader=reader,
                tuned=start.tuned,
            )
            for seed in range(design.seeds)
        ]
        for start in starts
    }


def _maps(
    args: argparse.Namespace, dataset: LabelledDataset, source: str
) -> tuple[dict[str, dict[str, Path]], dict[str, str]]:
    """Maps by case of the floor that was asked for, and why others have none."""
    if not args.map:
        return {}, {}
    from screener_nnu.lowshot.maps import predicted_maps

    maps, lost = predicted_maps(dataset, source, args.p, args.map, args.device, args.restart)
    return {f"{args.map} map": maps}, lost


def _parts(drawn: Mapping[Setting, Fold]) -> dict[str, list[str]]:
    """Training cases of each setting, by what messages call it."""
    return {
        f"fold {s.fold} (--num_cases {s.num_cases}, seed {s.seed})": cases["train"]
        for s, cases in drawn.items()
    }


def _train(
    runs: Sequence[LowShotRun],
    plans: Sequence[StockPlan],
    dataset: LabelledDataset,
    args: argparse.Namespace,
) -> dict[str, str]:
    from screener_nnu.devices import choose_device
    from screener_nnu.finetuning.plan import write_target_plan
    from screener_nnu.finetuning.prepare import prepare_dataset
    from screener_nnu.lowshot.train import train_runs

    device = choose_device(args.device).type
    for plan in plans:
        write_target_plan(plan, args.restart)
    prepare_dataset(dataset, plans[0], worker_processes(args.np))
    return train_runs(runs, device, args.restart)


def _settings(
    args: argparse.Namespace,
    design: Design,
    dataset: LabelledDataset,
    source: str,
    starts: Sequence[Start],
) -> dict[str, Any]:
    """What was asked for, as plain values for the report."""
    weights = {s.name: None if s.weights is None else str(s.weights) for s in starts}
    return {
        "dataset": dataset.name,
        "source": source,
        "plans": args.p,
        "starts": weights,
        "nsd_tolerance_mm": args.nsd_tolerance,
        "unit": dataset.kind.unit,
        **asdict(design),
    }


if __name__ == "__main__":
    main()
