"""What the fine-tuning commands share: arguments, and the table of what is transferred."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screener_nnu.errors import ScreenerError

if TYPE_CHECKING:
    from screener_nnu.finetuning.dataset import LabelledDataset
    from screener_nnu.finetuning.starts import Start
    from screener_nnu.plans import StockPlan


def positive(text: str) -> int:
    """An argument that counts something.

    Raises:
        ArgumentTypeError: it is no number, or below one.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number, at least 1")
    return int(text)


def check_before_writing(
    dataset: LabelledDataset,
    plans: Iterable[StockPlan],
    parts: Mapping[str, Iterable[str]],
    processes: int,
    restart: bool,
) -> None:
    """The door of fine-tuning: refuses whatever would fail later, before a file is written.

    Args:
        dataset: the labelled dataset.
        plans: that would be written for it.
        parts: training cases, by a name for messages.
        processes: that read cases at a time.
        restart: whether earlier trainings may be replaced.

    Raises:
        ScreenerError: folders that cannot be written to, files of somebody else in the way, cases
            that cannot be trained on, or training cases without any foreground.
    """
    from screener_nnu.finetuning.dataset_check import check_cases, require_foreground
    from screener_nnu.finetuning.plan import check_target_plan
    from screener_nnu.finetuning.prepare import refuse_foreign_cases
    from screener_nnu.paths import results_folder

    results = results_folder(dataset.name)
    require_writable({"nnUNet_preprocessed": dataset.folder, "nnUNet_results": results})
    for plan in plans:
        check_target_plan(plan, restart)
        refuse_foreign_cases(dataset, plan)
    held = check_cases(dataset, processes)
    everything = {dataset.name: dataset.cases}
    require_foreground(dataset.label_values, held, {**everything, **parts})


def require_writable(places: Mapping[str, Path]) -> None:
    """Refuses folders that results could not be written to hours later.

    Args:
        places: a folder, which need not exist, by the variable or argument that names it.

    Raises:
        ScreenerError: one of them is no folder, or may not be written to.
    """
    for name, folder in places.items():
        present = next(p for p in (folder, *folder.parents) if os.path.lexists(p))
        reason = "" if present.is_dir() else f"{present} is no folder"
        if not reason and not os.access(present, os.W_OK | os.X_OK):
            reason = f"{present} may not be written to"
        if reason:
            raise ScreenerError(
                f"{folder} cannot hold results ({reason}): see to its rights, or name another "
                f"place by {name}"
            )


def fine_tuning_settings(add: Callable[..., Any]) -> None:
    """The argument for settings of our trainers, as `args.settings`."""
    add(
        "-o",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of FineTuningTrainer (starts with :tuned), for instance "
        "encoder_factor=0.1, or of ProbeTrainer (with :probe, or :lpft), for instance hidden=128",
    )


def check_settings_used(starts: Iterable[Start], settings: Sequence[str]) -> None:
    """Refuses settings that no start looks at.

    Raises:
        ScreenerError: all starts are trained by nnU-Net's own trainer, or the trainers of the
            others have no such setting.
    """
    trainers = {start.tuned.trainer: start.tuned.keys() for start in starts if start.tuned}
    known = {key for keys in trainers.values() for key in keys}
    for word in settings:
        key = word.partition("=")[0]
        if not trainers:
            raise ScreenerError(
                f"-o {word} is a setting of trainers that no start asks for: write --init "
                "student:tuned, student:probe or student:lpft, or leave -o out"
            )
        if key not in known:
            listed = "; ".join(f"{name}: {', '.join(keys)}" for name, keys in trainers.items())
            raise ScreenerError(f"no fine-tuning setting '{key}'; known: {listed}")


def worker_processes(wanted: int | None) -> int:
    """Number of worker processes, given to nnU-Net through its environment variable as well."""
    processes = wanted or min(8, os.cpu_count() or 1)
    if wanted:
        os.environ["nnUNet_def_n_proc"] = str(processes)
    os.environ.setdefault("nnUNet_def_n_proc", str(processes))
    return processes


def print_transfer(start: Start, plan: StockPlan, dataset_json: Mapping[str, Any]) -> None:
    """Prints which tensors are transferred, before anything is written.

    Args:
        start: where to start from.
        plan: plan of the labelled dataset.
        dataset_json: its `dataset.json`.

    Raises:
        ScreenerError: a tensor beside the segmentation heads does not fit, or the plan of the
            source has changed since it was trained.
    """
    if start.weights is None:
        print("from scratch: the plan of the source, no weights")
        return
    from screener_nnu.finetuning.checkpoint import read_checkpoint
    from screener_nnu.finetuning.compare import (
        compare_with_network,
        require_match,
        summary_table,
    )
    from screener_nnu.finetuning.starts import check_input

    checkpoint = read_checkpoint(start.weights)
    rows = compare_with_network(checkpoint["network_weights"], plan, dataset_json)
    print(f"weights of {start.weights}\n{summary_table(rows)}")
    require_match(rows)
    for line in check_input(start, checkpoint, plan):
        print(line)
