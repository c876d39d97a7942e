"""Loss and gradient of a step by several processes, beside those of one process.

    python tests/benchmarks/study_processes.py DATASET

For each stage, and both losses of the descriptor, the first step of a plan with four samples a step
is computed by one process, by two and by four, as `torchrun` starts them, on a processor. The table
holds the largest difference of a gradient to that of one process, relative to its largest value.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from screener_nnu.paths import plan_file, preprocessed_folder, set_default_folders
from screener_nnu.plans import read_plan
from screener_nnu.trainers.processes import is_first, joined_by_torchrun
from screener_nnu.trainers.stages import trainer_of

_STEPS = {
    "descriptor, InfoNCE": ("descriptor", "descriptor", ("descriptor.loss=infonce",)),
    "descriptor, VICReg": ("descriptor", "descriptor", ("descriptor.loss=vicreg",)),
    "condition": ("condition", "condition.contrast", ("condition.kind=masking_invariant",)),
    "density": ("density", "density", ()),
    "distillation": ("distillation", "distillation", ()),
}


def main() -> None:
    """Prints the table, or computes its part in one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset")
    parser.add_argument("--steps", nargs="+", choices=list(_STEPS), default=list(_STEPS))
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    set_default_folders()
    if arguments.step:
        _compute(arguments.dataset, arguments.step, arguments.out)
        return
    print("| | loss, 1 process | 2 | 4 | gradient, 2 | 4 |\n|---|---|---|---|---|---|")
    for step in arguments.steps:
        found = [_by_processes(arguments.dataset, step, count) for count in (1, 2, 4)]
        losses = " | ".join(f"{loss:.7f}" for loss, _ in found)
        apart = " | ".join(f"{_difference(found[0][1], g):.1e}" for _, g in found[1:])
        print(f"| {step} | {losses} | {apart} |", flush=True)


def _by_processes(dataset: str, step: str, count: int) -> tuple[float, list[torch.Tensor]]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.pth"
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        words = [str(Path(__file__).resolve()), dataset, "--step", step, "--out", str(out)]
        done = subprocess.run([sys.executable, *torchrun, *words], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        return torch.load(out, weights_only=True)


def _compute(dataset: str, step: str, out: Path) -> None:
    stage, where, settings = _STEPS[step]
    torch.set_num_threads(1)
    with joined_by_torchrun(torch.device("cpu")) as device:
        plan = read_plan(plan_file(dataset, "ScreenerPlans"))
        own = [*settings, f"{where}.volumes_per_step=4", "low_precision_cpu=false"]
        plan = plan.with_settings(plan.settings.override(own))
        description = json.loads((preprocessed_folder(dataset) / "dataset.json").read_text())
        values = {**plan.to_dict(), "continue_training": False}
        configuration = plan.configuration_name
        trainer = trainer_of(stage)(values, configuration, "all", description, device)
        trainer.initialize()
        trainer.make_ready()
        if stage == "density":
            trainer.prepare()
        trainer.network.train()
        loss, _ = trainer.compute_loss(next(trainer.training_batches(0)), 0)
        loss.backward()
        mean = loss.detach()
        if trainer.is_ddp:
            torch.distributed.all_reduce(mean)
            mean /= torch.distributed.get_world_size()
        found = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        if is_first():
            torch.save((float(mean), found), out)


def _difference(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    largest = max(float(gradient.abs().max()) for gradient in one)
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs) / largest


if __name__ == "__main__":
    main()
