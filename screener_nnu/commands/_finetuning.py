"""What the fine-tuning commands share: arguments, and the table of what is transferred."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
