"""A background process that is killed must not leave the command waiting for its result."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from screener_nnu.errors import ScreenerError
from screener_nnu.files import OutputError
from screener_nnu.finetuning import killed_workers
from screener_nnu.finetuning.killed_workers import named_when_killed

HERE = Path(__file__).parent


@pytest.mark.skipif(os.name == "nt", reason="nothing is killed for memory there")
@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_waiting_for_a_killed_process_ends(handler: Any) -> None:
    """As nnU-Net waits for its predictions: the pool starts another process, the result is lost.

    Also where interrupts are ignored, as in what a script starts in the background.
    """
    before = signal.signal(signal.SIGINT, handler)
    try:
        _wait_for_a_killed_process()
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def _wait_for_a_killed_process() -> None:
    with (
        pytest.raises(ScreenerError, match="^the validation was stopped.* memory ran out"),
        named_when_killed("the validation", HERE),
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        pool.apply(time.sleep, (0.5,))
        pool.apply_async(signal.raise_signal, (signal.SIGKILL,)).get(timeout=60)


def test_processes_that_end_in_good_order_are_none_of_its_business() -> None:
    with named_when_killed("the validation", HERE):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(abs, (-2,)) == 2
        time.sleep(0.5)  # the pool has terminated its process, which is looked at by now


def test_an_interrupt_of_the_user_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt), named_when_killed("the training", HERE):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Some background workers are no longer alive", "the training was stopped.*-np"),
        ("One or more background workers are no longer alive. Exiting.", "-np"),
        ("Some background worker is 6 feet under. Yuck.", "-np"),
        ("CUDA out of memory. Tried to allocate 2 GiB\nmore", "2 GiB.: end other programs"),
    ],
)
def test_what_nnunet_and_torch_say_becomes_a_sentence(text: str, reason: str) -> None:
    with pytest.raises(ScreenerError, match=reason), named_when_killed("the training", HERE):
        raise RuntimeError(text)


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(RuntimeError, match="shape"), named_when_killed("the training", HERE):
        raise RuntimeError("shape mismatch")


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write failed")],
)
def test_a_full_disk_is_named(error: Exception) -> None:
    with (
        pytest.raises(OutputError, match=f"^{HERE} cannot be written .no space left.*run the same"),
        named_when_killed("the training", HERE),
    ):
        raise error


def test_a_library_that_does_not_say_why_it_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blosc2 does not; the space that is left tells, of a folder that is not there yet, too."""
    folder, error = tmp_path / "not" / "there", RuntimeError("Error while creating the NDArray")
    with pytest.raises(RuntimeError, match="NDArray"), named_when_killed("the training", folder):
        raise error
    monkeypatch.setattr(killed_workers, "_TOO_LITTLE", 1 << 60)
    with pytest.raises(OutputError, match="no space"), named_when_killed("the training", folder):
        raise error


def test_other_errors_of_files_stay(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), named_when_killed("the training", tmp_path):
        (tmp_path / "nothing").read_text()
