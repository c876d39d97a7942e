"""Checkpoints and arrays: written whole or not at all, read without running code of theirs."""

from __future__ import annotations

import pickle
import zipfile
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

    See Also:
        `stage_checkpoint`: what a trained stage must hold, and the way out where it does not.

    Raises:
        ScreenerError: see `load_plain`; the message names the file.
    """
    try:
        return load_plain(path)
    except ScreenerError as error:
        raise ScreenerError(f"the checkpoint {path} cannot be used: {error}") from error


def load_plain(path: Path) -> dict[str, Any]:
    """What `read_checkpoint` gives; what is said of a file does not name it.

    Raises:
        ScreenerError: missing, damaged, no checkpoint, or with more than tensors and plain values.
    """
    if not path.is_file():
        raise ScreenerError("it is not there")
    if not zipfile.is_zipfile(path):
        torn = "it is damaged, since it ends too early or was never a checkpoint"
        raise ScreenerError(torn if path.stat().st_size else "it is empty")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch does not look at the checksums
        if damaged:
            raise ScreenerError(f"it is damaged ({damaged} has another checksum)")
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ScreenerError):
        raise
    except pickle.UnpicklingError as error:
        raise ScreenerError(
            "it holds more than tensors and plain values, as checkpoints of stock nnU-Net may and "
            "ours never do, and is not read, since it could run code of a stranger"
        ) from error
    except Exception as error:  # whatever torch makes of damage
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ScreenerError(f"it is damaged ({reason})") from error
    if not isinstance(checkpoint, dict):
        raise ScreenerError(f"it holds no checkpoint, but a {type(checkpoint).__name__}")
    return checkpoint
