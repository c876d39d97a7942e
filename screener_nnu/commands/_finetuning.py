"""What the fine-tuning commands share: arguments, and the table of what is transferred."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from screener_nnu.errors import ScreenerError

if TYPE_CHECKING:
    from screener_nnu.finetuning.starts import Start


def positive(text: str) -> int:
    """An argument that counts something.

    Raises:
        ArgumentTypeError: it is below one.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def fine_tuning_settings(add: Callable[..., Any]) -> None:
    """The argument for settings of `FineTuningTrainer`, as `args.settings`."""
    add(
        "-o",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of FineTuningTrainer (starts with :tuned), for instance encoder_factor=0.1",
    )


def check_settings_used(starts: Iterable[Start], settings: Sequence[str]) -> None:
    """Refuses settings that no start looks at.

    Raises:
        ScreenerError: there are settings, but all starts are trained by nnU-Net's own trainer.
    """
    if settings and not any(start.tuned for start in starts):
        raise ScreenerError(
            f"-o {settings[0]} is a setting of FineTuningTrainer, which no start asks for: write "
            "--init student:tuned, or leave -o out"
        )


def worker_processes(wanted: int | None) -> int:
    """Number of worker processes, given to nnU-Net through its environment variable as well."""
    processes = wanted or min(8, os.cpu_count() or 1)
    if wanted:
        os.environ["nnUNet_def_n_proc"] = str(processes)
    os.environ.setdefault("nnUNet_def_n_proc", str(processes))
    return processes


def print_transfer(start: Start, plan: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> None:
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
