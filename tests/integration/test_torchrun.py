"""Processes that `torchrun` starts train what one process trains; here on a processor."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.stage_checkpoint import HEAD
from screener_nnu.trainers.base import ScreenerTrainer
from screener_nnu.trainers.processes import spawn_processes
from screener_nnu.trainers.run import _train

pytestmark = pytest.mark.slow


CHAIN = ("descriptor", "condition", "density", "distillation")
STEPS = 60


def command(world: Any, processes: int, *words: str) -> subprocess.Popen[str]:
    """`screener_train 901 3d_fullres ...` on processors; of several processes by `torchrun`."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    program = [str(Path(sys.executable).with_name("screener_train")), "901", "3d_fullres"]
    return subprocess.Popen(
        [sys.executable, *torchrun * (processes > 1), *program, *words, "-device", "cpu"],
        env={**os.environ, **world.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def output_of(world: Any, processes: int, *words: str, expected: int = 0) -> str:
    """What such a command says until it ends."""
    process = command(world, processes, *words)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == expected, output[-4000:]
    return output


def write_plan(world: Any, *settings: str) -> None:
    plan = world.plan(*settings).to_dict()
    (world.preprocessed / "ScreenerPlans.json").write_text(json.dumps(plan))


def weights(
    world: Any, stage: str, plans: str = "ScreenerPlans", key: str = "network_weights"
) -> dict[str, torch.Tensor]:
    path = world.stage(stage, plans) / "checkpoint_final.pth"
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)[key]
    return found


def train_alone(world: Any, stage: str, *words: str) -> None:
    """In this process, in the folders of that world."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.environment.items():
            patch.setenv(name, value)
        world.train(stage, *words)


def assert_close(one: Any, other: Any, tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance)


def test_two_train_what_one_trains(world: Any, tmp_path: Path) -> None:
    where = ("descriptor", "condition.contrast", "density", "distillation")
    # Where gradients are nearly 0, Adam would make steps of what is left of them.
    settings = [f"{w}.{s}" for w in where for s in ("volumes_per_step=4", "optimiser.eps=1e-4")]
    write_plan(world, *settings)
    alone = world.copy(tmp_path / "alone")
    output_of(world, 2, "chain")
    train_alone(alone, "chain")
    for stage in CHAIN:
        assert_close(weights(world, stage), weights(alone, stage), 1e-3)


@pytest.mark.long
def test_two_read_the_condition_and_fit_as_one_does(trained: Any) -> None:
    reads = (
        *("distillation.learns=condition", "distillation.density_plans=ScreenerPlans"),
        *("distillation.volumes_per_step=4", "distillation.optimiser.eps=1e-4"),
    )
    options = [word for setting in reads for word in ("-o", setting)]
    two, one = (["-p", f"Reads{n}", "--from_plans", "ScreenerPlans", *options] for n in (2, 1))
    output_of(trained, 2, "distillation", *two)
    train_alone(trained, "distillation", *one)
    two, one = (weights(trained, "distillation", f"Reads{n}", HEAD) for n in (2, 1))
    assert_close(two, one, 1e-4)
    # What is fitted in one pass is fitted by the first of them.
    assert "fit:" in output_of(trained, 2, "padim")
    assert (trained.stage("density", "ScreenerPlans_padim") / "checkpoint_final.pth").is_file()


def test_an_error_of_the_user_is_one_sentence(world: Any) -> None:
    output = output_of(world, 2, "density", expected=1)
    assert output.count("error: ") == 1
    assert "screener_train 901 3d_fullres descriptor" in output


@pytest.mark.long
def test_processes_of_one_command(world: Any) -> None:
    """As `-num_gpus 2` starts them, here on a processor."""
    cpu = torch.device("cpu")
    density = partial(_train, world.preprocessed.name, "density", "ScreenerPlans", None, False)
    with pytest.raises(ScreenerError, match=r"screener_train 901 3d_fullres descriptor"):
        spawn_processes(2, density, cpu)


@pytest.mark.parametrize("in_a_step", [False, True])
def test_a_stage_that_ends_as_it_is_told_to_is_the_last(
    world: Any, in_a_step: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    end = ScreenerTrainer.calibrate

    def told(self: Any) -> None:
        trained.append(self.stage)
        self.stop.can_wait = in_a_step
        os.kill(os.getpid(), signal.SIGTERM)
        end(self)

    monkeypatch.setattr(ScreenerTrainer, "calibrate", told)
    with pytest.raises(SystemExit) as stopped:
        world.train("chain")
    assert stopped.value.code == 75 and trained == ["descriptor"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_training_that_is_told_to_end_loses_no_step(
    world: Any, tmp_path: Path, processes: int
) -> None:
    settings = (f"steps={STEPS}", "steps_per_epoch=30", "eps=1e-4")
    write_plan(world, *(f"descriptor.optimiser.{setting}" for setting in settings))
    whole = world.copy(tmp_path / "whole")
    process = command(world, processes, "descriptor")
    wait_for_a_step(process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert "stopped: the descriptor stage was asked to end" in output, output[-3000:]
    if processes == 1:  # torchrun has an exit code of its own
        assert process.returncode == 75
    path = world.stage("descriptor") / "checkpoint_latest.pth"
    latest = torch.load(path, weights_only=True)
    assert 0 < latest["global_step"] < STEPS and latest["global_step"] % 30
    assert latest["current_epoch"] == latest["global_step"] // 30
    train_alone(world, "descriptor")
    train_alone(whole, "descriptor")
    tolerance = 0.0 if processes == 1 else 1e-3
    assert_close(weights(world, "descriptor"), weights(whole, "descriptor"), tolerance)


def wait_for_a_step(process: subprocess.Popen[str]) -> None:
    """Until the bar shows one."""
    assert process.stdout is not None
    seen, shown = "", re.compile(r"descriptor:.*\| [1-9]\d*/")
    while not shown.search(seen[-200:]):
        letter = process.stdout.read(1)
        assert letter, seen
        seen += letter
