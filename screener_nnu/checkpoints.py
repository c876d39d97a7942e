"""Checkpoints and arrays: written whole or not at all, read without running code of theirs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.files import replacing


def write_checkpoint(values: dict[str, Any], path: Path) -> None:
    """Saves plain values and tensors; a reader sees the old file or the whole new one.

    Raises:
        ScreenerError: the disk is full; the old file stays.
    """
    write_whole(path, lambda stream: torch.save(values, stream))


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes a NumPy file, in the same way.

    Raises:
        ScreenerError: the disk is full.
    """
    write_whole(path, lambda stream: np.save(stream, array))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a small file, in the same way.

    Raises:
        ScreenerError: the disk is full.
    """
    write_whole(path, lambda stream: stream.write(content))


def write_whole(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Lets a function write a file; a reader sees the old file or the whole new one.

    Raises:
        ScreenerError: the disk is full; the old file stays.
    """
    with replacing(path) as temporary, temporary.open("wb") as stream:
        write(stream)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU without unpickling code.

    Raises:
        ScreenerError: missing or damaged.
    """
    if not path.is_file():
        raise ScreenerError(f"no checkpoint {path}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ScreenerError(f"{path} cannot be read ({error}); train this stage anew") from error
