"""What a training leaves, takes up and refuses when something went wrong before or goes wrong."""

from __future__ import annotations

import errno
import logging
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu import files
from screener_nnu.errors import ScreenerError
from screener_nnu.trainers.run import train_stage

CPU = torch.device("cpu")
PLANS = "ScreenerPlans"


def train(stage: str = "descriptor", restart: bool = False) -> None:
    train_stage("901", stage, PLANS, CPU, restart)


def cut_short(world: Any, epochs: int = 1, stage: str = "descriptor") -> Any:
    """A trainer whose run ended after some epochs, as if it was killed."""
    trainer = world.trainer(stage)
    trainer.num_epochs, end = epochs, trainer.on_train_end
    trainer.on_train_end = lambda: None
    trainer.run_training()
    trainer.on_train_end = end
    return trainer


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["network_weights"]


def test_restart_removes_what_a_training_writes_and_nothing_else(
    trained: Any, caplog: pytest.LogCaptureFixture
) -> None:
    folder = trained.stage("density")
    assert (folder / "calibration.json").is_file()
    mine = ["notes.txt", "checkpoint_final_before.pth", "training_log_mine.txt"]
    for name in mine:
        (folder / name).write_text("mine")
    (folder / "maps").mkdir()
    (folder / "maps" / "a.nii.gz").write_text("mine")
    (folder / "debug.json").write_text("{}")
    (folder / ".checkpoint_best.pth.17.tmp").write_text("killed while writing")
    before = weights(folder / "checkpoint_final.pth")
    logs = set(folder.glob("training_log_2*.txt"))
    written = (folder / "checkpoint_final.pth").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        train("density", restart=True)
    named = [m for m in caplog.messages if m.startswith("--restart leaves what no training writes")]
    assert len(named) == 1 and str(folder) in named[0]
    assert all(name in named[0] for name in (*mine, "maps")) and "progress.png" not in named[0]
    assert all((folder / name).read_text() == "mine" for name in (*mine, "maps/a.nii.gz"))
    assert not (folder / "debug.json").exists()
    assert not list(folder.glob(".*.tmp"))
    assert logs and not any(path.exists() for path in logs - set(folder.glob("training_log_2*")))
    assert (folder / "checkpoint_final.pth").stat().st_mtime_ns > written
    after = weights(folder / "checkpoint_final.pth")
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_a_torn_latest_checkpoint_costs_epochs_and_not_the_run(
    world: Any, tmp_path: Path, kept: float, caplog: pytest.LogCaptureFixture
) -> None:
    cut_short(world)
    latest = world.stage("descriptor") / "checkpoint_latest.pth"
    whole = latest.read_bytes()
    straight = world.copy(tmp_path / "straight")
    latest.write_bytes(whole[: int(kept * len(whole))])
    with caplog.at_level(logging.INFO):
        train()
    assert f"{latest} is not used: it is " in caplog.text
    assert "going on in epoch 2 of 2" in caplog.text  # after that of checkpoint_best
    resumed = weights(world.stage("descriptor") / "checkpoint_final.pth")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in straight.environment.items():
            patch.setenv(name, value)
        train()
        expected = weights(straight.stage("descriptor") / "checkpoint_final.pth")
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())


def test_nothing_readable_to_go_on_from_is_said(world: Any) -> None:
    cut_short(world)
    folder = world.stage("descriptor")
    for name in ("latest", "best"):
        (folder / f"checkpoint_{name}.pth").write_bytes(b"")
    with pytest.raises(ScreenerError) as error:
        train()
    message = str(error.value)
    assert message.startswith(f"{folder / 'checkpoint_latest.pth'} cannot be used as descriptor")
    assert "it is empty; train it anew" in message
    assert message.endswith("\n    screener_train 901 3d_fullres descriptor --restart")
    train(restart=True)
    assert (folder / "checkpoint_final.pth").is_file()


def test_a_latest_checkpoint_without_numbers_is_refused(world: Any) -> None:
    cut_short(world)
    latest = world.stage("descriptor") / "checkpoint_latest.pth"
    checkpoint = torch.load(latest, weights_only=True)
    next(iter(checkpoint["head_weights"].values())).fill_(math.inf)
    torch.save(checkpoint, latest)
    with pytest.raises(ScreenerError, match=r"(?s)checkpoint_latest.* no finite .*--restart"):
        train()


def test_a_finished_stage_that_is_damaged_is_said(trained: Any) -> None:
    path = trained.stage("distillation") / "checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ScreenerError, match=rf"(?s){path} .*damaged.*distillation --restart"):
        train("distillation")


@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(world: Any, spoilt: float) -> None:
    trainer = cut_short(world)
    folder = world.stage("descriptor")
    before = (folder / "checkpoint_latest.pth").read_bytes()
    trainer = world.trainer("descriptor")
    trainer.load_checkpoint(str(folder / "checkpoint_latest.pth"))
    compute = trainer.compute_loss

    def diverge(batch: Any, step: int) -> Any:
        loss, terms = compute(batch, step)
        return (loss * spoilt if step == 3 else loss), terms  # its fourth step

    trainer.compute_loss = diverge
    with pytest.raises(ScreenerError) as error:
        trainer.run_training()
    message = str(error.value)
    assert f"the descriptor stage went astray at step 4: its loss is {spoilt}" in message
    for way_out in ("learning_rate", "--restart", "low_precision_cpu=false", str(folder)):
        assert way_out in message
    assert (folder / "checkpoint_latest.pth").read_bytes() == before
    assert not (folder / "checkpoint_final.pth").exists()


def test_weights_that_are_no_numbers_are_not_measured(world: Any) -> None:
    """The last step of an epoch may spoil them after a loss that was a number."""
    trainer = world.trainer("descriptor")
    trainer.on_train_start()
    outputs = [trainer.train_step(next(trainer.dataloader_train))]
    trainer.stage_log.log("lrs", 0.1, 0)
    spoil(trainer)
    with pytest.raises(ScreenerError, match="went astray at step 1: .* no finite numbers"):
        trainer.on_train_epoch_end(outputs)


@pytest.mark.parametrize("stage", ["descriptor", "density", "distillation"])
def test_weights_that_are_no_numbers_are_not_written(trained: Any, stage: str) -> None:
    path = trained.stage(stage) / "checkpoint_final.pth"
    before = path.read_bytes()
    trainer = trained.trainer(stage)
    trainer.score_statistics = {}
    spoil(trainer)
    with pytest.raises(ScreenerError, match="went astray at step 0: .* no finite numbers"):
        trainer.save_checkpoint(str(path))
    assert path.read_bytes() == before


def spoil(trainer: Any) -> None:
    with torch.no_grad():
        next(trainer.model.parameters()).view(-1)[0] = math.inf


def test_results_that_cannot_be_written_are_named(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = world.stage("descriptor").parent / "running.lock"
    lock.mkdir(parents=True)
    with pytest.raises(SystemExit) as end:
        world.train("descriptor")
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert f"{lock} cannot be written (Is a directory): see to the rights" in message
    assert "nnUNet_results" in message


def test_a_full_disk_ends_the_training_with_the_last_checkpoint_whole(
    world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_short(world)
    folder = world.stage("descriptor")
    before = (folder / "checkpoint_latest.pth").read_bytes()

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", no_space)
        with pytest.raises(SystemExit) as end:
            world.train("descriptor")
    assert end.value.code == 1
    message = capsys.readouterr().err
    assert "no space left" in message and str(folder.parent) in message
    assert (folder / "checkpoint_latest.pth").read_bytes() == before
    assert not list(folder.glob(".*.tmp"))
    world.train("descriptor")
    assert (folder / "checkpoint_final.pth").is_file()


def test_a_log_file_that_cannot_be_written_does_not_end_the_training(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    module = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer"
    monkeypatch.setattr(f"{module}.open", full, raising=False)
    monkeypatch.setattr(f"{module}.sleep", lambda _: None)
    train()
    assert (world.stage("descriptor") / "checkpoint_final.pth").is_file()
    assert not list(world.stage("descriptor").glob("training_log_*"))
