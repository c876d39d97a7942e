"""Stages outside the chain in two processes that share every step; here on a processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.baselines.base import build_method

pytestmark = pytest.mark.slow

STAGES = ("pretext", "igd", "baseline", "start")
# Run as two processes: rank, folder to meet in.
RANK = """
import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from screener_nnu.paths import plan_file, preprocessed_folder
from screener_nnu.plans import read_plan
from screener_nnu.trainers.stages import trainer_of

rank, folder = int(sys.argv[1]), Path(sys.argv[2])
torch.set_num_threads(1)
dist.init_process_group(
    "gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2
)
for stage in sys.argv[3:]:
    plan = read_plan(plan_file("901", "ScreenerPlans")).to_dict()
    plan["continue_training"] = False
    description = json.loads((preprocessed_folder("901") / "dataset.json").read_text())
    cpu = torch.device("cpu")
    trainer = trainer_of(stage)(plan, "3d_fullres", "all", description, cpu)
    trainer.run_training()
    share = trainer.share_of_rank()
    weights = {name: value.clone() for name, value in trainer.model.named_parameters()}
    result = {"share": share, "steps": trainer.global_step, "weights": weights}
    torch.save(result, folder / f"{stage}_{rank}.tmp")
    os.replace(folder / f"{stage}_{rank}.tmp", folder / f"{stage}_{rank}.pth")
    dist.barrier()
# Leave together and without gloo's tear-down, which aborts now and then when the other is gone.
(folder / f"done_{rank}").touch()
while not all((folder / f"done_{r}").is_file() for r in range(2)):
    time.sleep(0.05)
os._exit(0)
"""


def run_two(world: Any, folder: Path, stages: Sequence[str]) -> None:
    """Trains stages of the world's plan in two processes, whose results lie in the folder."""
    script = folder / "rank.py"
    script.write_text(RANK)
    environment = {**os.environ, **world.environment}
    processes = []
    for rank in range(2):
        log = (folder / f"log_{rank}").open("w")
        words = [sys.executable, str(script), str(rank), str(folder), *stages]
        processes.append(subprocess.Popen(words, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    logs = [(folder / f"log_{rank}").read_text() for rank in range(2)]
    assert codes == [0, 0], logs[0][-3000:] + logs[1][-3000:]


def results_of(folder: Path, stage: str) -> list[Any]:
    """What both processes ended with."""
    return [torch.load(folder / f"{stage}_{rank}.pth", weights_only=True) for rank in range(2)]


def assert_same_weights(one: Any, other: Any) -> None:
    for name, value in one["weights"].items():
        assert torch.isfinite(value).all()
        torch.testing.assert_close(value, other["weights"][name], rtol=0, atol=0)


@pytest.mark.long
def test_every_stage_is_trained_by_two(world: Any, tmp_path: Path) -> None:
    plan = world.plan("pretext.images_per_step=4").to_dict()
    (world.preprocessed / "ScreenerPlans.json").write_text(json.dumps(plan))
    run_two(world, tmp_path, STAGES)
    for stage in STAGES:
        one, other = results_of(tmp_path, stage)
        # Images are mixed with others of their process, and patches come from others.
        own = 2 if stage in ("pretext", "igd") else 1
        assert (one["share"], other["share"]) == ((0, own), (own, own))
        assert one["steps"] == other["steps"] == 4
        assert_same_weights(one, other)
        assert (world.stage(stage) / "checkpoint_final.pth").is_file()
        assert not (world.stage(stage) / "checkpoint_latest.pth").exists()


@pytest.mark.long
def test_a_method_with_networks_in_turns(world: Any, tmp_path: Path) -> None:
    options = {"critic_steps": 2, "gan_share": 0.5}
    steps = [f"baseline.optimiser.{s}" for s in ("steps=8", "steps_per_epoch=4")]
    own = f"baseline.options={json.dumps(options)}"
    plan = world.plan("baseline.method=fanogan", own, "baseline.keep=last", *steps)
    (world.preprocessed / "ScreenerPlans.json").write_text(json.dumps(plan.to_dict()))
    first = build_method(plan)
    run_two(world, tmp_path, ["baseline"])
    one, other = results_of(tmp_path, "baseline")
    assert_same_weights(one, other)
    assert one["steps"] == other["steps"] == 8
    # Each network has had a turn.
    for part in {name.split(".")[0] for name in one["weights"]}:
        before = {n: v for n, v in first.named_parameters() if n.startswith(part)}
        learns = any(v.requires_grad for v in before.values())
        assert learns == any(not torch.equal(v, one["weights"][n]) for n, v in before.items())
