"""What is no sound checkpoint of a stage is refused by all that load it, with the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.commands.predict import main as predict
from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.stage_checkpoint import check_finite, check_statistics, finished_stage
from screener_nnu.trainers.run import train_stage

CPU = torch.device("cpu")
STAGES = ("descriptor", "condition", "density", "distillation")
PLANS = "ScreenerPlans"


def final(world: Any, stage: str) -> Path:
    return world.stage(stage) / "checkpoint_final.pth"


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    checkpoint = torch.load(path, weights_only=True)
    edit(checkpoint)
    torch.save(checkpoint, path)


def spoil(checkpoint: dict[str, Any]) -> None:
    list(checkpoint["network_weights"].values())[-1].flatten()[0] = float("nan")


def load(stage: str) -> None:
    """What every command does that needs the stage."""
    if stage == "distillation":
        ModelRef("901", PLANS).load(CPU)
    else:
        ModelRef("901", PLANS, "teacher").load(CPU)


@pytest.mark.parametrize("stage", STAGES)
def test_weights_that_are_no_numbers_are_refused(trained: Any, stage: str) -> None:
    change(final(trained, stage), spoil)
    ways_in: list[Callable[[], Any]] = [
        lambda: load(stage),
        lambda: train_stage("901", stage, PLANS, CPU),
        lambda: trained.trainer(stage).load_checkpoint(str(final(trained, stage))),
    ]
    if stage in ("descriptor", "condition"):
        ways_in.append(lambda: trained.trainer("density"))
    if stage == "density":
        ways_in.append(lambda: trained.trainer("distillation", "distillation.descriptor_weight=1"))
    for way_in in ways_in:
        with pytest.raises(ScreenerError) as error:
            way_in()
        message = str(error.value)
        assert message.startswith(f"{final(trained, stage)} cannot be used as {stage} stage: ")
        assert "no finite numbers" in message
        assert message.endswith(f"\n    screener_train 901 3d_fullres {stage} --restart")


@pytest.mark.parametrize(("key", "value"), [("mean", float("nan")), ("std", 0.0)])
@pytest.mark.parametrize("stage", ["density", "distillation"])
def test_statistics_that_are_no_scale_are_refused(
    trained: Any, stage: str, key: str, value: float
) -> None:
    change(final(trained, stage), lambda c: c["score_statistics"].update({key: value}))
    with pytest.raises(ScreenerError, match=r"(?s)score statistics are no .*restart") as error:
        load(stage)
    assert str(final(trained, stage)) in str(error.value)


def test_a_density_without_statistics_has_not_finished(trained: Any) -> None:
    change(final(trained, "density"), lambda c: c.update(score_statistics={}))
    with pytest.raises(ScreenerError, match=r"has not finished; .*\n.*density --restart"):
        load("density")


def newer(checkpoint: dict[str, Any]) -> None:
    checkpoint["plan"]["screener"]["density"]["sigma"] = 1


def stock(checkpoint: dict[str, Any]) -> None:
    for key in ("plan", "score_statistics"):
        checkpoint.pop(key)


def unknown(checkpoint: dict[str, Any]) -> None:
    checkpoint.update(trainer_name="DiffusionTrainer", channels=[1, 1])


def bare(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["network_weights"]
    checkpoint.clear()
    checkpoint["network_weights"] = weights


def wider(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["network_weights"]
    name = next(iter(weights))
    weights[name] = torch.cat([weights[name]] * 2)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (newer, "its plan is none of this version's .*sigma.* update screener_nnu"),
        (stock, r"a checkpoint of stock nnU-Net \(nnUNetTrainer\), without a plan"),
        (unknown, "a checkpoint of DiffusionTrainer, which this version .* update it"),
        (bare, "no stage of ours, without a plan"),
        (wider, r"the plan's network wants"),
        (lambda c: c["network_weights"].popitem(), "its tensors do not fit the plan's network"),
        (lambda c: c.pop("network_weights"), "it lacks network_weights"),
        (lambda c: c.update(plan=3), "without a plan"),
    ],
)
def test_students_of_another_kind_are_named(
    trained: Any, tmp_path: Path, edit: Any, reason: str
) -> None:
    given = tmp_path / "given.pth"
    given.write_bytes(final(trained, "distillation").read_bytes())
    change(given, edit)
    with pytest.raises(ScreenerError, match=reason) as error:
        ModelRef("901", PLANS, checkpoint=given).load(CPU)
    message = str(error.value)
    assert message.startswith(f"{given} cannot be used as distillation stage: ")
    assert "give the checkpoint_final.pth of another distillation stage, or train" in message


def test_the_command_names_the_stage_of_a_file_that_was_mixed_up(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = str(trained.raw / "imagesTr")
    for stage in ("descriptor", "condition", "density"):
        wrong = final(trained, stage)
        words = ["-d", "901", "-i", scans, "-o", str(tmp_path / "maps"), "-chk", str(wrong)]
        with pytest.raises(SystemExit) as end:
            predict([*words, "-device", "cpu"])
        assert end.value.code == 1
        message = capsys.readouterr().err
        assert f"{wrong} cannot be used as distillation stage" in message
        assert f"it is a checkpoint of the {stage} stage; give" in message
        assert "Traceback" not in message
    with pytest.raises(ScreenerError, match="it is a checkpoint of the distillation stage"):
        final(trained, "density").write_bytes(final(trained, "distillation").read_bytes())
        load("density")


@pytest.mark.parametrize("kept", [0, 100, 0.5])
def test_damaged_files_are_named(trained: Any, kept: float) -> None:
    for stage in STAGES:
        path = final(trained, stage)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(kept if kept >= 1 else kept * len(whole))])
        with pytest.raises(ScreenerError, match=rf"it is (empty|damaged).*\n.* {stage} --restart"):
            load(stage)
        path.write_bytes(whole)


def test_a_checkpoint_with_numbers_of_numpy_is_taken_for_that_of_stock_nnunet(
    trained: Any, tmp_path: Path
) -> None:
    path = tmp_path / "stock.pth"
    torch.save({"network_weights": {}, "logging": [np.float64(0.5)]}, path)
    with pytest.raises(ScreenerError, match="as checkpoints of stock nnU-Net may and ours never"):
        ModelRef("901", PLANS, checkpoint=path).load(CPU)


def test_sound_checkpoints_are_read(trained: Any) -> None:
    for stage in STAGES:
        assert "network_weights" in finished_stage("901", stage, PLANS).read()
        load(stage)


def test_whole_numbers_and_plain_values_are_finite() -> None:
    check_finite({"a": {"steps": torch.tensor([1, 2]), "name": "x"}, "b": 3, "c": [None]})
    with pytest.raises(ScreenerError, match="w holds values that are no finite numbers"):
        check_finite({"a": {"w": torch.tensor([1.0, float("-inf")])}})
    check_statistics({"mean": 1.0, "std": 2.0, "lowest": -1.0, "highest": 3.0})
