"""The device that a command computes on, and what else of the machine it needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from screener_nnu.errors import ScreenerError


def asked_of_workers(device: torch.device) -> str | None:
    """The device that workers are asked for: where this process has a GPU, what each has."""
    return None if device.type == "cuda" else device.type


def choose_device(name: str | None) -> torch.device:
    """The named device, or the best one of this machine.

    Raises:
        ScreenerError: the device is not there.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ScreenerError("no CUDA device is there; add -device cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ScreenerError("no MPS device is there; add -device cpu")
    if name == "cpu" and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cores())
    return torch.device(name)


def make_deterministic() -> None:
    """Lets GPUs compute the same from the same, for the whole process; processors do anyway.

    It is slower. Where torch has no such way for a computation, it warns and names it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def small_tensor(values: Sequence[Any], device: torch.device) -> torch.Tensor:
    """A few numbers, or rows of them, on a device; what it still computes is not waited for."""
    return torch.tensor(values).to(device, non_blocking=True)


def free_shared_memory() -> int | None:
    """Bytes that processes may still share, by which they pass tensors; None where it is unknown.

    Containers often have 64 MB of it.
    """
    folder = Path("/dev/shm")
    return shutil.disk_usage(folder).free if folder.is_dir() else None


def available_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
