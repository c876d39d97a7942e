"""`screener_finetune`: start stock nnU-Net on a labelled dataset from a distilled student."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from screener_nnu.commands._finetuning import (
    check_before_writing,
    check_settings_used,
    fine_tuning_settings,
    positive,
    print_transfer,
    worker_processes,
)
from screener_nnu.commands._run import run as run_command
from screener_nnu.commands._run import user_path
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import set_default_folders
from screener_nnu.plans import DEFAULT_PLANS_NAME, StockPlan
from screener_nnu.sharing.source import resolve_source
from screener_nnu.starts import METHODS

if TYPE_CHECKING:
    from screener_nnu.finetuning.dataset import LabelledDataset
    from screener_nnu.finetuning.starts import Start
    from screener_nnu.finetuning.training import FineTuningRun


def _fold(text: str) -> int | str:
    if text == "all" or text.isdecimal():
        return text if text == "all" else int(text)
    raise argparse.ArgumentTypeError("must be the number of a fold, from 0 on, or all")


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="screener_finetune",
        description="Moves plan and weights of a pre-trained dataset into a labelled one, "
        "preprocesses it and runs nnU-Net's own training. Predict with nnUNetv2_predict.",
    )
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="labelled dataset, name or number")
    add("--source", required=True, help="pre-trained dataset or model file .zip")
    add("-f", required=True, type=_fold, metavar="FOLD", help="fold of the split, or all")
    add(
        "--init",
        default="student",
        help=f"student, scratch, descriptor, pretext, shuffled, start, {', '.join(METHODS)} or a "
        "checkpoint [student]; with :tuned at its end it is trained by FineTuningTrainer",
    )
    fine_tuning_settings(add)
    add("--num_cases", type=positive, help="train on so few cases of the fold (low-shot)")
    add("--seed", type=int, default=0, help="draw of those cases [0]")
    add("--epochs", type=positive, help="epochs [1000, as nnU-Net; :tuned 250]")
    add("--iterations", type=positive, help="iterations an epoch [250, as nnU-Net]")
    add("-p", default=DEFAULT_PLANS_NAME, metavar="PLANS", help="plan of the source")
    add("-chk", type=user_path, metavar="FILE", help="checkpoint instead of the source's student")
    add("-device", choices=("cuda", "cpu", "mps"), help="where to train [cuda where there is one]")
    add("-np", type=positive, help="worker processes [8, at most one a core]")
    add("--restart", action="store_true", help="train anew, deleting the results of this fold")
    add("--ball_baseline", action="store_true", help="report the best central ball as well")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = build_parser().parse_args(arguments)
    run_command(lambda: _fine_tune(args))


def _fine_tune(args: argparse.Namespace) -> None:
    set_default_folders()
    processes = worker_processes(args.np)
    # After the environment is set: nnU-Net reads it when imported.
    from screener_nnu.devices import choose_device
    from screener_nnu.finetuning.dataset import read_labelled_dataset
    from screener_nnu.finetuning.fold_folder import read_record
    from screener_nnu.finetuning.image_kind import ImageKind
    from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan
    from screener_nnu.finetuning.prepare import prepare_dataset
    from screener_nnu.finetuning.training import FineTuningRun, fine_tune

    device = choose_device(args.device).type
    source, args.p = resolve_source(args.source, args.p)
    source_plan = read_source_plan(source, args.p)
    dataset = read_labelled_dataset(args.d, ImageKind.of(source_plan))
    start = _choose_start(args, source, source_plan)
    check_settings_used([start], args.settings)
    plan = target_plan(
        source_plan,
        source=source,
        target=dataset.name,
        start=start.name,
        reader=dataset.reader,
        tuned=start.tuned,
    )
    print_transfer(start, plan, dataset.dataset_json)
    part = _training_cases(args, dataset)
    check_before_writing(dataset, [plan], part, processes, args.restart)
    fold = _write_fold(args, dataset)
    run = FineTuningRun(
        dataset.name,
        plan.name,
        fold,
        start.weights,
        args.epochs or getattr(start.tuned, "epochs", 1000),
        args.iterations or getattr(start.tuned, "iterations", 250),
        trainer=start.trainer,
        configuration=plan.configuration_name,
    )
    read_record(run.folder)  # refuses the training of somebody else
    write_target_plan(plan, args.restart)
    prepare_dataset(dataset, plan, processes)
    dice = fine_tune(run, device, args.restart)
    _report(run, dice, device)
    if args.ball_baseline:
        _report_ball(dataset, fold)


def _choose_start(args: argparse.Namespace, source: str, source_plan: StockPlan) -> Start:
    from screener_nnu.finetuning.starts import STUDENT, find_start, make_start, parted

    if args.chk is None:
        return find_start(args.init, source, args.p, source_plan, args.settings)
    name, word = parted(args.init)
    if name != STUDENT:
        raise ScreenerError(
            f"--init {args.init} says where to start from: leave -chk out, or --init"
        )
    return make_start(STUDENT, args.chk, word, args.settings)


def _training_cases(args: argparse.Namespace, dataset: LabelledDataset) -> dict[str, list[str]]:
    """Cases of the part to train on, by what messages call it; nothing is written."""
    from screener_nnu.finetuning.splits import (
        check_fold,
        default_splits,
        draw_low_shot,
        read_splits,
    )

    if args.f == "all":
        if args.num_cases:
            raise ScreenerError(
                "--num_cases needs a numbered fold (-f 0), whose validation cases it keeps"
            )
        return {"fold all": dataset.cases}
    splits = read_splits(dataset.folder) or default_splits(dataset.cases)
    check_fold(splits, args.f, dataset.cases, dataset.folder)
    name = f"fold {args.f}"
    if not args.num_cases:
        return {name: splits[args.f]["train"]}
    drawn = draw_low_shot(splits[args.f], args.num_cases, args.seed, name)
    return {f"{name} (--num_cases {args.num_cases} --seed {args.seed})": drawn["train"]}


def _write_fold(args: argparse.Namespace, dataset: LabelledDataset) -> int | str:
    """The fold to train, which is in `splits_final.json` from now on."""
    from screener_nnu.finetuning.splits import ensure_splits, low_shot_fold

    if args.f == "all":
        return "all"
    ensure_splits(dataset.folder, dataset.cases)
    if not args.num_cases:
        return int(args.f)
    fold = low_shot_fold(dataset.folder, args.f, args.num_cases, args.seed)
    print(f"fold {fold} of splits_final.json: {args.num_cases} training cases of fold {args.f}")
    return fold


def _report(run: FineTuningRun, dice: float, device: str) -> None:
    print(f"\nmean validation Dice {dice:.4f} ({run.summary_file})")
    if run.fold == "all":
        print("(fold all validates on its training cases)")
    print(f"predict with stock nnU-Net:\n    {run.predict_command(device)}")


def _report_ball(dataset: LabelledDataset, fold: int | str) -> None:
    from screener_nnu.finetuning.ball import central_ball
    from screener_nnu.finetuning.splits import ensure_splits

    training = validation = dataset.cases
    if fold != "all":
        split = ensure_splits(dataset.folder, dataset.cases)[int(fold)]
        training, validation = split["train"], split["val"]
    radius, dice = central_ball(
        [dataset.labels[case] for case in training],
        [dataset.labels[case] for case in validation],
        dataset.dataset_json["labels"].get("ignore"),
    )
    size = f"{radius:.0f} {dataset.kind.unit}"
    print(f"central ball: Dice {dice:.4f} (radius {size}, all foreground as one class)")


if __name__ == "__main__":
    main()
