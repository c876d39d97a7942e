"""How much of a step of each stage is waiting for data, and what passes between two epochs.

    python tests/benchmarks/benchmark_waiting.py DATASET [--device cuda] [--steps 20] [--stages ...]

Of a plan with trained stages (each builds on those before it). In one process, in turn: steps as
they are trained, with data read by the plan's workers; the same steps on batches in memory;
and the forward and backward pass of the network alone, on the input that such a step gave it. What
is over the second is waiting; what the second is over the third is made on the device or the
processor for every step: crops resized, views drawn, the loss. Between two epochs come the figure,
the checkpoint and the picture. Nothing is written.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter
from typing import Any

import torch

from screener_nnu.devices import choose_device
from screener_nnu.paths import plan_file, set_default_folders
from screener_nnu.plans import read_plan
from screener_nnu.trainers.run import new_trainer
from screener_nnu.trainers.stages import trainer_of

_STAGES = ("descriptor", "condition", "density", "distillation", "pretext", "igd", "baseline")
_WARM_UP = 6


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset")
    parser.add_argument("-p", dest="plans", default="ScreenerPlans")
    parser.add_argument("--device", default=None)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--stages", nargs="+", default=list(_STAGES))
    arguments = parser.parse_args()
    set_default_folders()
    device = choose_device(arguments.device)
    print("| stage | step | data in memory | network alone | waiting | between epochs |")
    print("|---|---|---|---|---|---|")
    for stage in arguments.stages:
        row = _measure(arguments.dataset, arguments.plans, stage, device, arguments.steps)
        print(f"| {stage} | {row} |", flush=True)


def _measure(dataset: str, plans: str, stage: str, device: torch.device, steps: int) -> str:
    settings = read_plan(plan_file(dataset, plans)).settings
    if not trainer_of(stage).takes_steps(settings):
        return "fitted in one pass | | | |"
    with tempfile.TemporaryDirectory() as folder:
        trainer = new_trainer(dataset, stage, plans, device)
        trainer.output_folder = trainer.output_folder_base = folder
        trainer.initialize()
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        batches = trainer.dataloader_train
        kept, captured = [], _Capture(trainer.network)

        def trained() -> Any:
            batch = next(batches)
            kept.append(batch)
            return trainer.train_step(batch)

        for _ in range(_WARM_UP):
            trained()
        real = _times(trained, steps, device)
        again: Iterator[Any] = iter(kept[-steps:] * 2)
        memory = _times(lambda: trainer.train_step(next(again)), steps, device)
        bare = _times(captured.run, steps, device) if captured.inputs else float("nan")
        outputs = [trainer.train_step(kept[-1])]
        begun = perf_counter()
        trainer.on_train_epoch_end(outputs)
        trainer.on_validation_epoch_end([])
        trainer.on_epoch_end()
        between = perf_counter() - begun
    waiting = max(0.0, 1 - memory / real)
    return f"{real:.3f} | {memory:.3f} | {bare:.3f} | {100 * waiting:.1f} % | {between:.2f} s"


def _times(step: Callable[[], Any], count: int, device: torch.device) -> float:
    """Seconds a step over all of them, or the median where they differ by their draws."""
    spent = []
    for _ in range(count):
        begun = perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(perf_counter() - begun)
    return median(spent) if device.type == "cpu" else sum(spent) / count


class _Capture:
    """The input that a network was given last, and its forward and backward pass on it."""

    def __init__(self, network: torch.nn.Module) -> None:
        """Listens."""
        self.network, self.inputs = network, ()
        self.named: dict[str, Any] = {}
        network.register_forward_pre_hook(self._keep, with_kwargs=True)
        self.listening = True

    inputs: tuple[Any, ...]

    def _keep(self, _: torch.nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if self.listening:
            self.inputs, self.named = inputs, named

    def run(self) -> None:
        """Both passes, without optimiser."""
        self.listening = False
        cpu = next(self.network.parameters()).device.type == "cpu"
        with torch.autocast("cpu" if cpu else "cuda", enabled=True):
            output = self.network(*self.inputs, **self.named)
        loss = sum(value.float().mean() for value in _tensors(output))
        loss.backward()
        self.network.zero_grad(set_to_none=True)


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if torch.is_tensor(output):
        if output.requires_grad:
            yield output
    elif isinstance(output, dict):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _tensors(value)


if __name__ == "__main__":
    main()
