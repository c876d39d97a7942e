from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.commands._finetuning import print_transfer
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import read_checkpoint
from screener_nnu.finetuning.plan import read_source_plan, target_plan
from screener_nnu.finetuning.starts import STARTS, Start, check_input, file_start_name, find_start
from screener_nnu.plans import Plan, StockPlan
from screener_nnu.starts import METHODS, method_class

SOURCE, TARGET = "Dataset901_Trunk", "Dataset502_Lesions"


def find(wanted: str, *overrides: str) -> Start:
    plan = Plan.from_dict(read_source_plan(SOURCE, "ScreenerPlans").values)
    plan = plan.with_settings(plan.settings.override(list(overrides)))
    return find_start(wanted, SOURCE, "ScreenerPlans", plan)


def save_descriptor(world: Any, plans_name: str, channels: int = 5) -> Path:
    """A descriptor as its stage saves it: more outputs than the student, and the plan beside it."""
    plan = json.loads(world.plan_file.read_text())
    weights = torch.load(world.student, weights_only=True)["network_weights"]
    for key in [key for key in weights if ".seg_layers." in key]:
        weights[key] = torch.zeros(channels, *weights[key].shape[1:])
    path = world.student.parents[2] / f"DescriptorTrainer__{plans_name}__3d_fullres" / "fold_all"
    path.mkdir(parents=True)
    path /= "checkpoint_final.pth"
    torch.save({"network_weights": weights, "init_args": {"plans": plan}}, path)
    return path


def target(start: Start) -> StockPlan:
    plan = read_source_plan(SOURCE, "ScreenerPlans")
    return target_plan(plan, source=SOURCE, target=TARGET, start=start.name, reader="SimpleITKIO")


def test_starts_by_name(world: Any) -> None:
    assert find("scratch") == Start("scratch", None)
    assert find("student") == Start("student", world.student)
    with pytest.raises(ScreenerError, match="screener_train 901 3d_fullres descriptor"):
        find("descriptor")
    path = save_descriptor(world, "ScreenerPlans")
    assert find("descriptor") == Start("descriptor", path)


def test_shuffled_keeps_statistics_and_nothing_else(world: Any) -> None:
    start = find("shuffled")
    assert start.origin == "shuffled" and start.weights != world.student
    student, shuffled = (
        torch.load(path, weights_only=True) for path in (world.student, start.weights)
    )
    places: dict[int, set[int]] = {}
    for name, value in student["network_weights"].items():
        other = shuffled["network_weights"][name]
        assert torch.equal(value.flatten().sort().values, other.flatten().sort().values)
        if value.unique().numel() > 8:
            assert not torch.equal(value, other), name
        places.setdefault(value.data_ptr(), set()).add(other.data_ptr())
    assert all(len(others) == 1 for others in places.values())  # names still share tensors
    written = start.weights.stat().st_mtime_ns
    assert find("shuffled") == start and start.weights.stat().st_mtime_ns == written
    check_input(start, read_checkpoint(start.weights), read_source_plan(SOURCE, "ScreenerPlans"))


def test_descriptor_may_belong_to_another_plan(world: Any) -> None:
    path = save_descriptor(world, "ScreenerPlans_vicreg")
    assert find("descriptor", "density.descriptor_plans=ScreenerPlans_vicreg").weights == path


def test_any_plan_of_nnunet_may_be_the_source_but_of_a_descriptor(world: Any) -> None:
    values = read_source_plan(SOURCE, "ScreenerPlans").to_dict()
    del values["screener"]
    stock = StockPlan(values)
    for wanted in ("scratch", "student", str(world.student)):
        assert find_start(wanted, SOURCE, "ScreenerPlans", stock) == find(wanted)
    with pytest.raises(ScreenerError, match="a plan of stock nnU-Net"):
        find_start("descriptor", SOURCE, "ScreenerPlans", stock)


def test_files_are_named_by_their_model_and_content(world: Any, tmp_path: Path) -> None:
    name = find(str(world.student)).name
    assert name.startswith("DistillationTrainer-ScreenerPlans-")
    assert "_" not in name and name not in STARTS
    copy = tmp_path / "my__weights.pth"
    shutil.copy(world.student, copy)
    assert file_start_name(copy) == f"my-weights-{name[-8:]}"
    torch.save({"network_weights": {}}, copy)
    assert file_start_name(copy)[-8:] != name[-8:]
    with pytest.raises(ScreenerError, match="'teacher' is no start: give scratch, student"):
        find("teacher")


def test_descriptor_is_transferred_but_for_its_heads(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    save_descriptor(world, "ScreenerPlans")
    start = find("descriptor")
    print_transfer(start, target(start), json.loads((world.raw / "dataset.json").read_text()))
    said = capsys.readouterr().out
    assert "68 of 72" in said and "4 reset" in said and "preprocessing.equalisation" in said


@pytest.mark.parametrize("name", METHODS)
def test_starts_of_a_plan_of_their_own(
    world: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ScreenerError, match=f"screener_train 901 3d_fullres start_{name}"):
        find(name)
    own = f"StartTrainer__ScreenerPlans_start_{name}__3d_fullres"
    path = world.student.parents[2] / own / "fold_all" / "checkpoint_final.pth"
    path.parent.mkdir(parents=True)
    checkpoint = torch.load(world.student, weights_only=True)
    trained = method_class(name).trains
    torch.save({**checkpoint, "trained": trained}, path)
    assert find(name) == Start(name, path)
    tuned = find(f"{name}:tuned")
    assert tuned.weights == path and tuned.tuned is not None
    # The file itself is said to be what it is, too.
    for start in (find(name), find(str(path))):
        print_transfer(start, target(start), json.loads((world.raw / "dataset.json").read_text()))
        said = capsys.readouterr().out
        assert "68 of 72" in said
        assert ("its encoder and its decoder were trained" in said) == (trained != "encoder")
        assert ("its decoder has the weights it was made with" in said) == (trained == "encoder")


def test_other_images_are_noted_for_a_file_and_refused_for_a_stage(
    world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save_descriptor(world, "ScreenerPlans")
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["init_args"]["plans"]["configurations"]["3d_fullres"]["spacing"] = [9.0, 9.0, 9.0]
    torch.save(checkpoint, path)
    description = json.loads((world.raw / "dataset.json").read_text())
    stage, file = find("descriptor"), find(str(path))
    print_transfer(file, target(file), description)
    assert "spacing: trained with [9.0, 9.0, 9.0]" in capsys.readouterr().out
    with pytest.raises(ScreenerError, match="plan has changed"):
        print_transfer(stage, target(stage), description)
    del checkpoint["init_args"]["plans"]["configurations"]["3d_fullres"]
    torch.save(checkpoint, path)
    file = find(str(path))
    print_transfer(file, target(file), description)
    assert "no '3d_fullres'" in capsys.readouterr().out


def test_checkpoints_of_nnunet_itself_are_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    log = {"mean_fg_dice": [np.float32(0.5), np.float64(0.25)], "epochs": [np.int64(3)]}
    torch.save({"network_weights": {"w": torch.ones(2)}, "logging": log}, path)
    assert read_checkpoint(path)["logging"] == log
    torch.save({"network_weights": {}, "trainer": Start("x")}, path)
    with pytest.raises(ScreenerError, match="cannot be read as tensors"):
        read_checkpoint(path)
    path.write_bytes(b"")
    with pytest.raises(ScreenerError, match="ends too early"):
        read_checkpoint(path)
