"""Several processes that train one model, one a device, on one machine or on many."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from screener_nnu.errors import ScreenerError, StoppedError
from screener_nnu.trainers.stopping import agreeing_by, sigterm_passed_on

Result = TypeVar("Result")

# Processes wait for each other while scans are scored, which may take hours.
_PATIENCE = timedelta(days=2)
_TOLD = "error told"


@contextmanager
def joined(device: torch.device, rank: int, ranks: int) -> Iterator[torch.device]:
    """Joins the processes of a training, and gives the device of this one.

    They meet where `MASTER_ADDR` and `MASTER_PORT` say. Processes on GPUs talk by NCCL, others by
    gloo.

    Args:
        device: the kind that was asked for.
        rank: of this process among all, from 0.
        ranks: number of processes.

    Raises:
        ScreenerError: this machine has fewer GPUs than processes.
    """
    on_gpus = device.type == "cuda"
    if on_gpus:
        device = torch.device("cuda", _local_rank(rank))
        torch.cuda.set_device(device)
    store, _, _ = next(dist.rendezvous("env://", rank, ranks, timeout=_PATIENCE))
    group = dist.PrefixStore("group", store)
    dist.init_process_group(
        "nccl" if on_gpus else "gloo", store=group, rank=rank, world_size=ranks, timeout=_PATIENCE
    )
    try:
        with agreeing_by(store):
            yield device
        # Nobody leaves while another still talks to it.
        dist.barrier()
    except ScreenerError as error:
        if dist.is_torchelastic_launched() and _is_told(store, rank):
            raise SystemExit(error.exit_code) from error
        raise
    finally:
        dist.destroy_process_group()


def _is_told(store: dist.Store, rank: int) -> bool:
    """Whether the first process tells of an error of its own, which is mostly the same."""
    if rank == 0:
        store.set(_TOLD, "")
        return False
    try:
        store.wait([_TOLD], timedelta(seconds=5))
    except RuntimeError:  # it does not
        return False
    return True


def _local_rank(rank: int) -> int:
    """Which GPU of this machine is ours."""
    own, visible = int(os.environ.get("LOCAL_RANK", rank)), torch.cuda.device_count()
    if own >= visible:
        raise ScreenerError(
            f"a process for GPU {own + 1} of a machine with {visible}: start as many as there are "
            "(--nproc_per_node)"
        )
    return own


@contextmanager
def joined_by_torchrun(device: torch.device, num_gpus: int = 1) -> Iterator[torch.device]:
    """As `joined` for what `torchrun` started; anything else is on its own.

    Raises:
        ScreenerError: each is to start others for several GPUs; or see `joined`.
    """
    if not dist.is_torchelastic_launched():
        yield device
        return
    if num_gpus > 1:
        raise ScreenerError("torchrun starts the processes: leave -num_gpus out")
    with joined(device, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) as own:
        yield own


def train_on_gpus(count: int, train: Callable[[torch.device], None]) -> None:
    """Runs a training in processes of this machine, one a GPU.

    Args:
        count: of processes.
        train: takes the device; can be pickled.

    Raises:
        ScreenerError: there are fewer GPUs, a process was lost, or what a process says.
        StoppedError: SIGTERM came.
    """
    visible = torch.cuda.device_count()
    if visible < count:
        raise ScreenerError(f"-num_gpus {count}, but {visible} CUDA devices are visible")
    spawn_processes(count, train, torch.device("cuda"))


def spawn_processes(
    count: int, train: Callable[[torch.device], None], device: torch.device
) -> None:
    """Runs a training in processes of this machine; see `train_on_gpus`."""
    from nnunetv2.run.run_training import find_free_network_port

    os.environ.setdefault("MASTER_ADDR", "localhost")
    os.environ.setdefault("MASTER_PORT", str(find_free_network_port()))
    running = torch.multiprocessing.spawn(
        _run_rank, (count, train, device), nprocs=count, join=False
    )
    try:
        with sigterm_passed_on(running.processes):
            while not running.join():
                pass
    except torch.multiprocessing.ProcessExitedException as error:
        raise ScreenerError(
            f"a process of the training was lost ({error}), perhaps for lack of memory: the same "
            "command goes on"
        ) from error
    except torch.multiprocessing.ProcessRaisedException as error:
        _, of_ours, words = str(error).rpartition(f"{ScreenerError.__module__}.")
        if not of_ours:
            raise
        name, _, message = words.partition(": ")
        kind = StoppedError if name == StoppedError.__name__ else ScreenerError
        raise kind(message.strip()) from error


def _run_rank(
    rank: int, ranks: int, train: Callable[[torch.device], None], device: torch.device
) -> None:
    with joined(device, rank, ranks) as own:
        train(own)


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return not dist.is_initialized() or dist.get_rank() == 0


def first_alone(work: Callable[[], Result]) -> Result:
    """What the first process makes of something, while the others wait; all of them get it.

    Raises:
        ScreenerError: in the first process, what the work raises.
        SystemExit: in the others then, so that the reason is told once.
    """
    if not dist.is_initialized():
        return work()
    answer: list[Any] = [None, None]
    if is_first():
        try:
            answer = [work(), None]
        except (ScreenerError, OSError) as error:
            dist.broadcast_object_list([None, getattr(error, "exit_code", 1)])
            raise
    dist.broadcast_object_list(answer)
    if answer[1] is not None:
        raise SystemExit(answer[1])
    result: Result = answer[0]
    return result


def any_process(value: bool, device: torch.device) -> bool:
    """Whether something is so in one of the processes, the same answer for all of them."""
    shared = torch.tensor(float(value), device=device)
    dist.all_reduce(shared)
    return bool(shared > 0)


def mean_over_all(values: torch.Tensor) -> torch.Tensor:
    """Mean of values (n,) of which each process holds some.

    Each value counts alike, however many a process has. What a process returns is its part times
    the number of processes: gradients are averaged over them, and become those of the mean.
    """
    if not dist.is_initialized():
        return values.mean()
    count = torch.tensor(float(len(values)), device=values.device)
    dist.all_reduce(count)
    return values.sum() * (dist.get_world_size() / count)


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows (n, D) of all processes in their order, with gradients; n may differ between them."""
    from torch.distributed.nn.functional import all_gather

    own = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, own)
    sizes = torch.cat(counts).tolist()
    filled = torch.nn.functional.pad(rows, (0, 0, 0, max(sizes) - len(rows)))
    gathered = all_gather(filled.contiguous())
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])
