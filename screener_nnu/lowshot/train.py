"""Trains what is missing of a benchmark; one failure does not stop the others.

Several processes may share the trainings of a benchmark by the same command.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Sequence

from screener_nnu.errors import BusyError, ScreenerError
from screener_nnu.files import OutputError
from screener_nnu.finetuning.training import FineTuningRun, check_settings, fine_tune
from screener_nnu.lowshot.design import LowShotRun

logger = logging.getLogger(__name__)
Train = Callable[[FineTuningRun, str, bool], object]
# Between looks at what another process trains (s).
_WAIT = 10.0


def train_runs(
    runs: Sequence[LowShotRun], device: str, restart: bool = False, train: Train = fine_tune
) -> dict[str, str]:
    """Trains every run that is not finished; those that were killed go on.

    A run that another process is training is waited for when all others are done.

    Args:
        runs: in the order of training.
        device: `cuda`, `cpu` or `mps`.
        restart: delete what is there of these runs, and train anew.
        train: trains and validates one of them.

    Returns:
        The reason of each failure by the name of the run.

    Raises:
        OutputError: the disk is full, as it would be for the others.
    """
    failures: dict[str, str] = {}
    elsewhere = _train_each(runs, device, restart, train, failures)
    while elsewhere:
        logger.info("waiting for %d trainings of other processes", len(elsewhere))
        time.sleep(_WAIT)
        # What was deleted there must not be deleted again.
        elsewhere = _train_each(elsewhere, device, False, train, failures)
    return failures


def _train_each(
    runs: Sequence[LowShotRun],
    device: str,
    restart: bool,
    train: Train,
    failures: dict[str, str],
) -> list[LowShotRun]:
    """Trains runs, notes failures, and gives the runs that another process is training."""
    elsewhere = []
    for number, run in enumerate(runs, start=1):
        logger.info("%d/%d: %s", number, len(runs), run.name)
        try:
            train(run.training, device, restart)
        except BusyError as error:
            logger.info("%s: %s", run.name, error)
            elsewhere.append(run)
        except OutputError:
            raise
        except Exception as error:
            # What a training may raise is up to nnU-Net, torch and the driver.
            failures[run.name] = _reason(error)
            expected = isinstance(error, ScreenerError)
            logger.error("%s failed: %s", run.name, error, exc_info=not expected)
        _free_memory()
    return elsewhere


def changed_runs(runs: Sequence[LowShotRun]) -> dict[str, str]:
    """Reason, by the name of the run, why a finished training is not the one that is asked for."""
    reasons: dict[str, str] = {}
    for run in runs:
        try:
            if run.training.finished:
                check_settings(run.training)
        except ScreenerError as error:
            reasons[run.name] = _reason(error)
    return reasons


def _reason(error: Exception) -> str:
    first = (str(error).splitlines() or [""])[0]
    return first if isinstance(error, ScreenerError) else f"{type(error).__name__}: {first}"


def _free_memory() -> None:
    """A trainer's circular references would keep its network on the device."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
