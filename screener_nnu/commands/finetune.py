"""`screener_finetune`: start stock nnU-Net on a labelled dataset from a distilled student."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screener_nnu.commands._run import run as run_command
from screener_nnu.errors import ScreenerError
from screener_nnu.paths import dataset_name, finished_checkpoint, set_default_folders
from screener_nnu.plans import DEFAULT_PLANS_NAME

if TYPE_CHECKING:
    from screener_nnu.finetuning.dataset import LabelledDataset
    from screener_nnu.finetuning.training import FineTuningRun


def _fold(text: str) -> int | str:
    return text if text == "all" else int(text)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def build_parser() -> argparse.ArgumentParser:
    """Arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="screener_finetune",
        description="Moves plan and weights of a pre-trained dataset into a labelled one, "
        "preprocesses it and runs nnU-Net's own training. Predict with nnUNetv2_predict.",
    )
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="labelled dataset, name or number")
    add("--source", required=True, help="pre-trained dataset, name or number")
    add("-f", required=True, type=_fold, metavar="FOLD", help="fold of the split, or all")
    add("--init", choices=("student", "scratch"), default="student", help="where to start from")
    add("--num_cases", type=_positive, help="train on so few cases of the fold (low-shot)")
    add("--seed", type=int, default=0, help="draw of those cases [0]")
    add("--epochs", type=_positive, default=1000, help="epochs [1000, as nnU-Net]")
    add("--iterations", type=_positive, default=250, help="iterations an epoch [250, as nnU-Net]")
    add("-p", default=DEFAULT_PLANS_NAME, metavar="PLANS", help="plan of the source")
    add("-chk", type=Path, metavar="FILE", help="checkpoint instead of the source's student")
    add("-device", choices=("cuda", "cpu", "mps"), help="where to train [cuda where there is one]")
    add("-np", type=_positive, help="worker processes [8, at most one a core]")
    add("--restart", action="store_true", help="train anew, deleting the results of this fold")
    add("--ball_baseline", action="store_true", help="report the best central ball as well")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    args = build_parser().parse_args(arguments)
    run_command(lambda: _fine_tune(args))


def _fine_tune(args: argparse.Namespace) -> None:
    set_default_folders()
    processes = _worker_processes(args.np)
    # After the environment is set: nnU-Net reads it when imported.
    from screener_nnu.devices import choose_device
    from screener_nnu.finetuning.dataset import prepare_dataset, read_labelled_dataset
    from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan
    from screener_nnu.finetuning.training import FineTuningRun, fine_tune

    device = choose_device(args.device).type
    source = dataset_name(args.source)
    dataset = read_labelled_dataset(args.d)
    plan = target_plan(
        read_source_plan(source, args.p),
        source=source,
        target=dataset.name,
        start=args.init,
        reader=dataset.reader,
    )
    weights = _check_weights(args, source, plan, dataset.dataset_json)
    fold = _choose_fold(args, dataset)
    write_target_plan(plan, args.restart)
    prepare_dataset(dataset, plan, processes)
    run = FineTuningRun(
        dataset.name, plan["plans_name"], fold, weights, args.epochs, args.iterations
    )
    dice = fine_tune(run, device, args.restart)
    _report(run, dice, device)
    if args.ball_baseline:
        _report_ball(dataset, fold)


def _worker_processes(wanted: int | None) -> int:
    processes = wanted or min(8, os.cpu_count() or 1)
    if wanted:
        os.environ["nnUNet_def_n_proc"] = str(processes)
    os.environ.setdefault("nnUNet_def_n_proc", str(processes))
    return processes


def _check_weights(
    args: argparse.Namespace,
    source: str,
    plan: Mapping[str, Any],
    dataset_json: Mapping[str, Any],
) -> Path | None:
    """Prints what will be transferred; returns the checkpoint, or `None` from scratch."""
    if args.init == "scratch":
        if args.chk is not None:
            raise ScreenerError("--init scratch takes no weights: leave -chk out")
        print("from scratch: the plan of the source, no weights")
        return None
    from screener_nnu.finetuning.checkpoint import check_same_input, read_checkpoint
    from screener_nnu.finetuning.compare import compare_with_network, require_match, summary_table

    path = args.chk or finished_checkpoint(source, "distillation", args.p)
    checkpoint = read_checkpoint(path)
    rows = compare_with_network(checkpoint["network_weights"], plan, dataset_json)
    print(f"weights of {path}\n{summary_table(rows)}")
    require_match(rows)
    check_same_input(checkpoint, plan)
    return Path(path)


def _choose_fold(args: argparse.Namespace, dataset: LabelledDataset) -> int | str:
    from screener_nnu.finetuning.splits import check_fold, ensure_splits, low_shot_fold

    if args.f == "all":
        if args.num_cases:
            raise ScreenerError(
                "--num_cases needs a numbered fold (-f 0), whose validation cases it keeps"
            )
        return "all"
    check_fold(ensure_splits(dataset.folder, dataset.cases), args.f, dataset.cases)
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
    print(f"central ball: Dice {dice:.4f} (radius {radius:.0f} mm, all foreground as one class)")


if __name__ == "__main__":
    main()
