"""Dask as the crew: a cluster of its own on this machine, or one that runs elsewhere."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.preprocessing.memory import free_memory
from screener_nnu.workers.crew import Crew, working_with

try:
    import dask
    from distributed import Client, LocalCluster, WorkerPlugin
except ImportError as missing:
    raise ScreenerError(
        "--cluster, --scheduler and --scheduler_file need Dask: pip install 'screener_nnu[cluster]'"
    ) from missing

logger = logging.getLogger(__name__)

_PATIENCE = 60.0
_USABLE = 0.85
_SETTINGS = {
    # A worker that dies has its case tried again by `Crew`, with more memory.
    "distributed.scheduler.allowed-failures": 0,
    # Nothing of a case stays in a worker, so that there is nothing to put on disk.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    "distributed.admin.tick.limit": "1h",
}
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1"}


class _Quiet(WorkerPlugin):
    """One thread a worker, and no Ctrl-C of its own."""

    name = "screener_nnu"

    def setup(self, worker: Any) -> None:
        """Called in each worker when it starts."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        except ValueError:  # not in the main thread of its process, which then does not hear it
            pass
        os.environ.update(_ONE_THREAD)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)


@contextmanager
def own_cluster(workers: int, worker_gb: float | None = None) -> Iterator[None]:
    """Works on cases in a cluster on this machine, as long as the block lasts.

    Its workers share the free memory evenly. One that takes more than its share is killed before
    the system runs out of memory; its case is tried again by one worker with all of it.

    Args:
        workers: number of processes.
        worker_gb: what each may take, in place of an even share.

    Raises:
        ScreenerError: that is not above 0.
    """
    if worker_gb is not None and not worker_gb > 0:
        raise ScreenerError(f"--worker_gb {worker_gb:g}: a worker needs some memory")
    memory = free_memory()
    usable = None if memory is None else int(_USABLE * memory)
    with tempfile.TemporaryDirectory(prefix="screener_") as scratch, dask.config.set(_SETTINGS):
        # What becomes of a case is told by us.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        share = None if usable is None else usable // workers
        if worker_gb is not None:
            share = int(1e9 * worker_gb)
        with _local(workers, share, scratch) as cluster, Client(cluster) as client:
            client.register_plugin(_Quiet())

            @contextmanager
            def alone() -> Iterator[Any]:
                cluster.scale(0)
                with _local(1, usable, scratch) as large, Client(large) as own:
                    own.register_plugin(_Quiet())
                    yield _executor(own)
                cluster.scale(workers)

            logger.info("%d workers%s", workers, "" if share is None else f" of {_gb(share)} each")
            where = "" if usable is None else f" and {_gb(usable)}"
            with working_with(Crew(_executor(client), lambda: workers, alone, where)):
                yield


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _executor(client: Client) -> Any:
    return client.get_executor(pure=False)


def _local(workers: int, memory: int | None, scratch: str) -> LocalCluster:
    return LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        memory_limit=memory or 0,
        dashboard_address="127.0.0.1:0",
        local_directory=scratch,
        silence_logs=logging.CRITICAL,
        env=_ONE_THREAD,
    )


@contextmanager
def running_cluster(address: str | None, file: Path | None) -> Iterator[None]:
    """Works on cases in a cluster that somebody started, as long as the block lasts.

    Its workers need this package, and the same folders and environment variables as this process.

    Args:
        address: of the scheduler, such as `tcp://10.0.0.1:8786`.
        file: that the scheduler wrote (`dask scheduler --scheduler-file`), in place of an address.

    Raises:
        ScreenerError: there is no scheduler, or it has no workers.
    """
    try:
        client = Client(address, scheduler_file=file and str(file), timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise ScreenerError(
            f"there is no scheduler at {address or file} ({error}): start one with 'dask scheduler'"
        ) from error
    with client:
        client.register_plugin(_Quiet())
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            raise ScreenerError(
                f"the scheduler at {address or file} has no workers: start some with 'dask worker'"
            ) from error
        executor = _executor(client)
        size = lambda: sum(client.nthreads().values())  # noqa: E731
        with working_with(Crew(executor, size, lambda: nullcontext(executor))):
            yield
