"""The options of every command that works on many cases: who does it."""

from __future__ import annotations

import argparse
import os
from contextlib import AbstractContextManager, nullcontext

from screener_nnu.commands._run import user_path
from screener_nnu.errors import ScreenerError


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Adds the cluster on this machine, and that elsewhere."""
    group = parser.add_argument_group("cluster", "who works on the cases, in place of processes")
    chosen = group.add_mutually_exclusive_group()
    chosen.add_argument(
        "--cluster",
        action="store_true",
        help="a Dask cluster on this machine, of -np workers with a limit of memory each",
    )
    group.add_argument(
        "--worker_gb",
        type=float,
        metavar="GB",
        help="of --cluster: memory above which a worker is killed (an even share of what is free)",
    )
    chosen.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster that runs")
    chosen.add_argument(
        "--scheduler_file", type=user_path, metavar="FILE", help="the same, by its scheduler's file"
    )


def add_part_options(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds the share of a machine, see `workers.part_of`.

    Args:
        parser: of the command.
        what: is done with the share, for the help.
    """
    parser.add_argument("--part", type=int, default=0, help=f"{what} part K of N (from 0) only")
    parser.add_argument("--parts", type=int, default=1)


def cluster_of(arguments: argparse.Namespace) -> AbstractContextManager[None]:
    """Lets what was asked for work on cases, as long as the block lasts.

    Raises:
        ScreenerError: there is no such cluster, or Dask is not installed.
    """
    if arguments.worker_gb is not None and not arguments.cluster:
        raise ScreenerError("--worker_gb is of --cluster: workers of another have a limit already")
    if not (arguments.cluster or arguments.scheduler or arguments.scheduler_file):
        return nullcontext()
    from screener_nnu.workers.cluster import own_cluster, running_cluster

    if arguments.cluster:
        workers = getattr(arguments, "processes", 0) or os.cpu_count() or 1
        return own_cluster(workers, arguments.worker_gb)
    return running_cluster(arguments.scheduler, arguments.scheduler_file)
