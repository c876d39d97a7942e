"""Reading processes that die, hang or run out of shared memory end a training with a sentence."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import re
import signal
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu import devices
from screener_nnu.errors import ScreenerError
from screener_nnu.trainers import loading
from screener_nnu.trainers.loading import lost_workers_named, step_batches
from screener_nnu.trainers.reading import CaseReader


@dataclass(frozen=True)
class Block:
    """A sample of a known size, some of it in a tuple."""

    case: str
    one: torch.Tensor
    two: tuple[torch.Tensor, torch.Tensor]
    none: torch.Tensor | None = None


class Blocks(CaseReader[Block]):
    """1000 float32 and two views of 10 values of 500 uint8: 5000 bytes a sample."""

    def read(self, case: str, generator: np.random.Generator) -> Block:
        view = torch.zeros(500, dtype=torch.uint8)[:10]
        return Block(case, torch.zeros(1000), (view, view.clone().new_zeros(500)))


class Full(CaseReader[Any]):
    """Cannot be sent to another process, as tensors without shared memory."""

    def read(self, case: str, generator: np.random.Generator) -> Any:
        return lambda: None


class Unreadable(CaseReader[Any]):
    """Fails as a file system does."""

    def read(self, case: str, generator: np.random.Generator) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", f"/{case}")


class Empty(CaseReader[Any]):
    """Knows no case that can be used."""

    def read(self, case: str, generator: np.random.Generator) -> Any:
        raise ScreenerError(f"{case} is no case")


def batches(kind: type[CaseReader[Any]], workers: int, volumes: int = 3) -> Any:
    reader = kind(Path("/nowhere"), ("a", "b"), 1, "descriptor")
    return step_batches(reader, volumes, 0, 0, volumes, workers)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much shared memory as 2 workers, 2 batches each, 3 samples a batch need."""
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 2 * 2 * 3 * 5000)


@pytest.mark.usefixtures("little_memory")
def test_too_little_shared_memory_is_noticed_before_a_process_starts() -> None:
    before = multiprocessing.active_children()
    with pytest.raises(
        ScreenerError, match=r"keep about 0 MB .*0 MB are free.*--shm-size"
    ) as error:
        batches(Blocks, workers=2, volumes=4)
    assert "-o workers=0" in str(error.value)
    with pytest.raises(ScreenerError, match="4 reading processes"):
        # Two devices of a machine share it.
        reader = Blocks(Path("/nowhere"), ("a", "b"), 1, "descriptor")
        step_batches(reader, 6, 0, 0, 3, 2)
    assert multiprocessing.active_children() == before
    assert len(next(batches(Blocks, workers=0, volumes=4))) == 4


@pytest.mark.usefixtures("little_memory")
def test_enough_shared_memory_is_enough() -> None:
    assert [len(batch) for batch in islice(batches(Blocks, workers=2), 3)] == [3, 3, 3]


def test_sizes_are_told_in_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 64_000_000)
    monkeypatch.setattr(loading, "_shared_bytes", lambda sample: 100_000_000)
    with pytest.raises(ScreenerError) as error:
        batches(Blocks, workers=2)
    assert "about 1200 MB" in str(error.value) and "64 MB are free" in str(error.value)
    assert "docker run --shm-size=3g" in str(error.value)


def test_shared_memory_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    free = devices.free_shared_memory()
    if Path("/dev/shm").is_dir():
        statistics = os.statvfs("/dev/shm")
        assert free == pytest.approx(statistics.f_bavail * statistics.f_frsize, rel=0.5)
    monkeypatch.setattr(devices.Path, "is_dir", lambda self: False)
    assert devices.free_shared_memory() is None


def test_a_training_whose_worker_is_killed_ends_with_a_sentence(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = world.trainer("descriptor", "workers=1", "descriptor.optimiser.steps=4000")
    compute = trainer.compute_loss

    def kill_first(batch: Any, step: int) -> Any:
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        return compute(batch, step)

    monkeypatch.setattr(trainer, "compute_loss", kill_first)
    trainer.num_epochs, trainer.stage_log.reference = 1, 0.0
    with pytest.raises(ScreenerError, match="process that reads cases was lost"):
        trainer.run_training()


def test_a_process_whose_batch_cannot_be_sent_is_not_waited_for() -> None:
    with pytest.raises(ScreenerError, match="was lost.*--shm-size"), lost_workers_named():
        next(batches(Full, workers=1))


def test_processes_that_hang_are_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = batches(Blocks, workers=1)
    next(waiting)
    monkeypatch.setattr(loading, "_PATIENCE", 0.2)
    monkeypatch.setattr(loading, "_MAX_PAUSES", 3)
    (worker,) = waiting.gi_frame.f_locals["loaded"]._workers
    os.kill(worker.pid, signal.SIGSTOP)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ScreenerError, match="was lost: no batch came for"),
    ):
        for _ in range(10):  # those that were read before are still given
            next(waiting)
    assert sum("still waiting" in message for message in caplog.messages) == 3
    worker.join(10)
    assert worker.exitcode == -signal.SIGKILL


@pytest.mark.parametrize("workers", [0, 1])
def test_errors_of_reading_arrive_as_they_were(workers: int) -> None:
    with pytest.raises(ScreenerError, match=re.compile("^[ab] is no case$")):
        next(batches(Empty, workers))
    with pytest.raises(PermissionError) as error:
        next(batches(Unreadable, workers))
    assert error.value.errno == errno.EACCES and error.value.filename in ("/a", "/b")


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="^shapes differ$"), lost_workers_named():
        raise RuntimeError("shapes differ")
