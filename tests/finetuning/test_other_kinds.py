"""Pictures and MR take the way of CT: checked, transferred, preprocessed and trained by nnU-Net."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import input_differences, stock_checkpoint
from screener_nnu.finetuning.compare import compare_with_network, require_match
from screener_nnu.finetuning.dataset import LabelledDataset, read_labelled_dataset
from screener_nnu.finetuning.dataset_check import check_cases
from screener_nnu.finetuning.image_kind import ImageKind
from screener_nnu.finetuning.plan import read_source_plan, target_plan, write_target_plan
from screener_nnu.finetuning.starts import DESCRIPTOR, Start, check_input, file_start_name
from screener_nnu.finetuning.training import FineTuningRun, make_trainer
from screener_nnu.plans import StockPlan
from screener_nnu.preprocessing.pictures import write_picture

kinds = runpy.run_path(str(Path(__file__).with_name("other_kinds.py")))
SOURCE, TARGET = "Dataset901_Trunk", "Dataset502_Lesions"
KINDS = ("grey", "colours", "mr")
IMAGES = {
    "grey": ImageKind("picture"),
    "colours": ImageKind("picture", 3),
    "mr": ImageKind("mr"),
    "ct": ImageKind("ct"),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def world(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    made = kinds["make_world"](tmp_path, kind)
    kinds["_ct"]["enter"](made, monkeypatch)
    return made


def read() -> tuple[StockPlan, LabelledDataset]:
    source = read_source_plan(SOURCE, "ScreenerPlans")
    dataset = read_labelled_dataset(502, ImageKind.of(source))
    plan = target_plan(source, source=SOURCE, target=TARGET, start="student", reader=dataset.reader)
    return plan, dataset


def test_sound_cases_pass_and_the_plan_keeps_its_configuration(world: Any, kind: str) -> None:
    plan, dataset = read()
    assert dataset.kind == IMAGES[kind] and len(dataset.cases) == 6
    assert check_cases(dataset, 0) == {case: (0, 1) for case in dataset.cases}
    name = "3d_fullres" if kind == "mr" else "2d"
    assert list(plan.values["configurations"]) == [name]
    assert plan.configuration["data_identifier"] == f"Screener901_{name}"
    reader = "SimpleITKIO" if kind == "mr" else "NaturalImage2DIO"
    assert dataset.reader == plan.values["image_reader_writer"] == reader


def test_all_but_the_heads_is_transferred(world: Any, kind: str) -> None:
    plan, dataset = read()
    student = kinds["student_of"](world, plan)
    checkpoint = torch.load(student, weights_only=True)
    axes = (0, 1, 2) if kind == "mr" else (0, 1)
    assert checkpoint["inference_allowed_mirroring_axes"] == axes
    rows = compare_with_network(checkpoint["network_weights"], plan, dataset.dataset_json)
    reset = sum(row.status == "reset" for row in rows)
    assert require_match(rows) == len(rows) - reset and reset > 0
    assert check_input(Start("student", student), checkpoint, plan) == []


def test_nnunet_builds_its_trainer_on_the_weights(world: Any, kind: str) -> None:
    plan, dataset = read()
    write_target_plan(plan)
    (world.preprocessed / "dataset.json").write_text(json.dumps(dataset.dataset_json))
    cases = world.preprocessed / plan.configuration["data_identifier"]
    cases.mkdir()
    (cases / "case_0.b2nd").touch()
    student = kinds["student_of"](world, plan)
    run = FineTuningRun(TARGET, plan.name, 0, student, 2, 2, configuration=plan.configuration_name)
    trainer = make_trainer(run, "cpu", resume=False)
    assert f"-c {plan.configuration_name} " in run.predict_command()
    assert run.folder.parent.name.endswith(f"__{plan.configuration_name}")
    weights = torch.load(student, weights_only=True)["network_weights"]
    state = trainer.network.state_dict()
    kept = [torch.equal(state[k], weights[k]) for k in state if ".seg_layers." not in k]
    assert all(kept)
    final = run.folder / "checkpoint_final.pth"
    trainer.save_checkpoint(str(final))
    assert file_start_name(final).startswith("nnUNetTrainer-Screener901-student-")
    assert "fullres" not in file_start_name(final) and "2d-" not in file_start_name(final)


def test_constants_of_every_colour_count_and_those_of_mr_do_not(kind: str) -> None:
    plan = kinds["plan_of"](kind)
    checkpoint = stock_checkpoint(kinds["network_of"](plan), plan, kinds["describe"](kind))
    values = plan.to_dict()
    last = str(plan.channels - 1)
    if kind == "mr":
        last = "0"
    values["foreground_intensity_properties_per_channel"][last]["mean"] += 1.0
    odd = input_differences(checkpoint, StockPlan(values))
    assert len(odd) == (0 if kind == "mr" else 1)


@pytest.mark.parametrize("other", ["grey", "colours", "mr", "ct"])
def test_data_sets_of_another_kind_are_refused(world: Any, kind: str, other: str) -> None:
    if other == kind:
        return
    wanted = {"grey": "grey pictures", "colours": "colour pictures"}.get(other, f"{other} channel")
    with pytest.raises(ScreenerError, match=f"(?i)the student knows (one )?{wanted}") as caught:
        read_labelled_dataset(502, IMAGES[other])
    assert ": channel_names must be" in str(caught.value) or ": give ." in str(caught.value)


@pytest.mark.parametrize(
    ("name", "description", "reason"),
    [
        ("grey", {"channel_names": {"0": "x"}, "file_ending": ".jpg"}, "give .png or .tif"),
        ("grey", {"channel_names": {"0": "CT"}, "file_ending": ".png"}, 'like {"0": "grey"}'),
        ("colours", {"channel_names": {"0": "R"}, "file_ending": ".png"}, '"2": "B"}'),
        ("mr", {"channel_names": {"0": "CT"}, "file_ending": ".nrrd"}, 'like {"0": "MR"}'),
        ("mr", {"channel_names": {"0": "T1", "1": "T2"}}, "one MR channel"),
        ("mr", {}, "but is None"),
    ],
)
def test_descriptions_say_what_is_allowed(
    name: str, description: dict[str, Any], reason: str
) -> None:
    (fault,) = IMAGES[name].faults(description)
    assert reason in fault


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("values", "holds 255, but dataset.json declares [0, 1]"),
        ("size", "differ in size: (36, 39, 1) and (36, 40, 1) voxels"),
        ("colours", "has 3 channels, where one is needed"),
        ("image", "cannot be read"),
    ],
)
@pytest.mark.parametrize("kind", ["grey", "colours"], indirect=True)
def test_pictures_that_cannot_be_trained_on_are_named(world: Any, change: str, reason: str) -> None:
    label = world.raw / "labelsTr" / "case_2.png"
    mask = np.zeros((40, 36), np.uint8)
    mask[8:12, 9:15] = 1
    if change == "values":
        write_picture(255 * mask, label)
    elif change == "size":
        write_picture(mask[1:], label)
    elif change == "colours":
        write_picture(np.stack([mask] * 3), label)
    else:
        path = world.raw / "imagesTr" / "case_2_0000.png"
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ScreenerError, match="1 of its cases") as caught:
        check_cases(read()[1], 0)
    assert f"case_2: {reason}" in str(caught.value) or reason in str(caught.value)


def test_the_descriptor_knew_other_values(kind: str) -> None:
    plan = kinds["plan_of"](kind)
    checkpoint = stock_checkpoint(kinds["network_of"](plan), plan, kinds["describe"](kind))
    (note,) = check_input(Start(DESCRIPTOR, Path("x")), checkpoint, plan)
    assert ("own mean" if kind == "mr" else "standardised grey values") in note


@pytest.mark.parametrize("kind", ["grey"], indirect=True)
def test_plans_that_are_none_of_ours_are_refused(world: Any) -> None:
    values = json.loads(world.plan_file.read_text())
    values["configurations"]["2d"]["normalization_schemes"] = ["RGBTo01Normalization"] * 3
    world.plan_file.write_text(json.dumps(values))
    with pytest.raises(ScreenerError, match="for pictures: it normalises by"):
        read_source_plan(SOURCE, "ScreenerPlans")


def test_records_of_before_configurations_were_kept_go_on(world: Any, kind: str) -> None:
    from screener_nnu.finetuning.training import begin_or_resume

    run = FineTuningRun(TARGET, "Screener901_student", "all", None)
    begin_or_resume(run)
    (run.folder / "checkpoint_latest.pth").touch()
    path = run.folder / "screener_finetune.json"
    record = json.loads(path.read_text())
    assert record.pop("configuration") == "3d_fullres"
    path.write_text(json.dumps(record))
    assert begin_or_resume(run)
    with pytest.raises(ScreenerError, match="epochs"):
        begin_or_resume(replace(run, epochs=3))
