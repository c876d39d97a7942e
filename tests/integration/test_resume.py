"""A run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

EPOCHS = 8


def lengthen(world: Any, stage: str) -> None:
    """More epochs of two steps, so that there is time for a kill between the first and last."""
    where = {"condition": "condition.contrast", "position": "condition.position"}.get(stage, stage)
    kind = "ape" if stage == "position" else "masking_invariant"
    settings = (f"steps={2 * EPOCHS}", "steps_per_epoch=2", "warmup_steps=1")
    lengths = [f"{where}.optimiser.{setting}" for setting in settings]
    plan = world.plan(f"condition.kind={kind}", *lengths).to_dict()
    (world.preprocessed / "ScreenerPlans.json").write_text(json.dumps(plan))


def forget(world: Any, stage: str) -> None:
    """As if the stage had not been trained."""
    if world.stage(stage).is_dir():
        for file in world.stage(stage).iterdir():
            file.unlink()


def kill_after_first_epoch(world: Any, stage: str) -> None:
    """Runs the command in a process of its own and kills it."""
    command = [str(Path(sys.executable).with_name("screener_train"))]
    command += ["901", "3d_fullres", stage, "-device", "cpu"]
    latest = world.stage(stage) / "checkpoint_latest.pth"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not latest.is_file():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (world.stage(stage) / "checkpoint_final.pth").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("position", marks=pytest.mark.long),
        "density",
        pytest.param("pretext", marks=pytest.mark.long),
        pytest.param("igd", marks=pytest.mark.long),
        pytest.param("baseline", marks=pytest.mark.long),
        pytest.param("distillation", marks=pytest.mark.long),
    ],
)
def test_killed_run_ends_like_an_uninterrupted_one(
    trained: Any, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(trained, stage)
    lengthen(trained, stage)
    whole = trained.copy(tmp_path / "whole")
    kill_after_first_epoch(trained, stage)
    killed = torch.load(trained.stage(stage) / "checkpoint_latest.pth", weights_only=True)
    assert 1 <= killed["current_epoch"] < EPOCHS
    trained.train(stage)
    for name, value in whole.environment.items():
        monkeypatch.setenv(name, value)
    whole.train(stage)

    results = [tmp_path / name / "results" for name in ("trained", "whole")]
    files = [next(r.glob(f"*/{stage.title()}*/fold_all/checkpoint_final.pth")) for r in results]
    resumed, straight = (torch.load(file, weights_only=True) for file in files)
    keys = [key for key in straight if key.endswith("_weights")]
    for key in keys:
        assert list(resumed[key]) == list(straight[key])
        for name, value in straight[key].items():
            assert torch.equal(resumed[key][name], value), name
    start = killed["network_weights"]
    moved = [n for n, v in straight["network_weights"].items() if not torch.equal(v, start[n])]
    assert moved  # the second half did something
    for log in (resumed["logging"], straight["logging"]):
        log["values"] = {k: v for k, v in log["values"].items() if "timestamps" not in k}
        assert all(len(v) == EPOCHS for v in log["values"].values())
    assert resumed["logging"] == straight["logging"]
    assert resumed.get("score_statistics") == straight.get("score_statistics")
    assert resumed["global_step"] == straight["global_step"] == 2 * EPOCHS
    left = [p.name for p in files[0].parent.iterdir() if p.name.endswith(".tmp")]
    assert not left and not (files[0].parent / "checkpoint_latest.pth").exists()
