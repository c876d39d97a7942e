"""nnU-Net's own training command trains the stages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TRAINERS = {
    "descriptor": "DescriptorTrainer",
    "condition": "ConditionTrainer",
    "density": "DensityTrainer",
    "distillation": "DistillationTrainer",
}


def command(name: str, *arguments: str) -> str:
    """Output of an installed command."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name(name)), *arguments],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


class InterruptedRunError(Exception):
    """Stands for whatever ended a run."""


def train_one_epoch(world: Any, stage: str) -> None:
    trainer = world.trainer(stage)
    end_epoch = trainer.on_epoch_end

    def stop() -> None:
        end_epoch()
        raise InterruptedRunError

    trainer.on_epoch_end = stop
    with pytest.raises(InterruptedRunError):
        trainer.run_training()


@pytest.mark.slow
def test_stock_command_trains_every_stage(
    world: Any, trained_once: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_extTrainer", command("screener_ext_trainers").strip())
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    # One of the stages is taken up where a run was stopped.
    train_one_epoch(world, "condition")
    assert (world.stage("condition") / "checkpoint_latest.pth").is_file()
    for stage, trainer in TRAINERS.items():
        words = ["901", "3d_fullres", "all", "-tr", trainer, "-p", "ScreenerPlans"]
        words += ["-device", "cpu", *(["--c"] if stage == "condition" else [])]
        output = command("nnUNetv2_train", *words)
        assert f"{stage} finished" in output
        # A stopped stage is not started anew: its untrained network was measured in the first run.
        assert ("of the untrained network" in output) == (stage != "condition")
    for stage in TRAINERS:
        ours = torch.load(_final(trained_once, stage), weights_only=True)
        stock = torch.load(_final(world, stage), weights_only=True)
        assert stock["global_step"] == ours["global_step"] == 4
        # Stock nnU-Net takes as many threads as there are cores, so sums are rounded otherwise.
        for name in ("train_losses", "figures", "lrs"):
            expected = ours["logging"]["values"][name]
            assert stock["logging"]["values"][name] == pytest.approx(expected, rel=0.02, abs=0.02)


def _final(world: Any, stage: str) -> Path:
    folder = f"{TRAINERS[stage]}__ScreenerPlans__3d_fullres"
    dataset = world.root / "results" / world.raw.name
    return dataset / folder / "fold_all" / "checkpoint_final.pth"
