"""A short training of a stage, and what each of its phases takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.step_time import StepClock

#: Methods of a trainer whose time is told apart.
READY, PREPARE, FIGURE = "make_ready", "prepare", "validation_figure"
EPOCH, FINISH, CALIBRATE = "on_epoch_end", "finish", "calibrate"
PHASES = (READY, PREPARE, FIGURE, EPOCH, FINISH, CALIBRATE)


@dataclass
class Measured:
    """What a short training took.

    Attributes:
        calls, seconds: of each phase, without what other phases take within it.
        step: seconds a step.
        rest: seconds of what is in no phase and no step: reading starts, files are opened.
        host, device: highest memory (bytes); `device` is 0 on a processor.
    """

    calls: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    step: float = 0.0
    rest: float = 0.0
    host: int = 0
    device: int = 0


def measure(trainer: ScreenerTrainer, warm_up: int) -> Measured:
    """Runs a training that was set to be short, with a clock in it.

    Args:
        trainer: not yet initialised.
        warm_up: steps that do not count.
    """
    watch = Stopwatch(PHASES)
    for name in PHASES:
        watch.watch(trainer, name)
    steps = StepClock(trainer, warm_up)
    _forget_peaks(trainer.device)
    begun = perf_counter()
    trainer.run_training()
    total = perf_counter() - begun
    found = Measured(watch.calls, watch.seconds, steps.mean)
    found.rest = max(0.0, total - sum(watch.seconds.values()) - steps.total)
    found.host = _peak_of_process()
    if trainer.device.type == "cuda":
        found.device = torch.cuda.max_memory_reserved(trainer.device)
    return found


class Stopwatch:
    """Seconds in methods, each without those of the watched methods that it calls.

    Args:
        names: of the methods.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        """Nothing is watched yet."""
        self.calls: Counter[str] = Counter()
        self.seconds: dict[str, float] = dict.fromkeys(names, 0.0)
        self._within: list[float] = []

    def watch(self, owner: Any, name: str) -> None:
        """Puts the clock around a method of an object."""
        method = getattr(owner, name)

        def timed(*arguments: Any, **named: Any) -> Any:
            begun = perf_counter()
            self._within.append(0.0)
            try:
                return method(*arguments, **named)
            finally:
                spent, others = perf_counter() - begun, self._within.pop()
                self.calls[name] += 1
                self.seconds[name] += spent - others
                if self._within:
                    self._within[-1] += spent

        setattr(owner, name, timed)


_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def _forget_peaks(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        _CLEAR.write_text("5")  # Linux: the peak is that of now
    except OSError:
        pass


def _peak_of_process() -> int:
    """Highest memory of this process (bytes) since `_forget_peaks`."""
    try:
        lines = _STATUS.read_text().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
    except (OSError, StopIteration):
        return 0  # a system that does not tell
