"""Model files of pictures and MR pass the checks, and what belongs to other images does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from screener_nnu.detectors import ModelRef
from screener_nnu.errors import ScreenerError
from screener_nnu.finetuning.checkpoint import stock_checkpoint
from screener_nnu.inference.models import stage_unet
from screener_nnu.networks.unet import build_unet
from screener_nnu.paths import stage_folder
from screener_nnu.planners.planner import ScreenerPlanner
from screener_nnu.plans import RARITY, Plan, write_json
from screener_nnu.sharing.card import model_card
from screener_nnu.sharing.contents_check import check_contents
from screener_nnu.sharing.description import main_settings
from screener_nnu.sharing.export import ExportRequest, export_model
from screener_nnu.sharing.install import install_model
from screener_nnu.sharing.manifest import Manifest, StageFile
from screener_nnu.sharing.plan_check import check_plan
from screener_nnu.sharing.scrub import checkpoint_without_cases, plan_without_cases
from screener_nnu.sharing.weights_check import read_stage

FINAL = "checkpoint_final.pth"
STUDENT = StageFile("ScreenerPlans", "distillation")
STATISTICS = {"mean": 1.0, "std": 2.0, "lowest": -3.0, "highest": 9.0}


def same_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def planned(kind: str) -> Plan:
    channels = 3 if kind == "colours" else 1
    if kind == "mr":
        spacing, shape, edges, modality = [1.5, 1.0, 1.0], [90, 160, 160], [-10.0, 0.0, 30.0], "mr"
    else:
        spacing, shape, edges = [999.0, 1.0, 1.0], [1, 120, 100], [0.0, 128.0, 256.0]
        modality = "picture"
    values = {"mean": 0.0, "median": 0.0, "std": 1.0, "min": -3.0, "max": 9.0}
    values |= {"percentile_00_5": -2.0, "percentile_99_5": 6.0}
    fingerprint = {
        "spacings": [spacing] * 4,
        "shapes_after_crop": [shape] * 4,
        "body_extents_mm": [[n * s for n, s in zip(shape, spacing, strict=True)]] * 4,
        "foreground_intensity_properties_per_channel": {str(c): values for c in range(channels)},
        "hu_histogram": {"edges": edges, "counts": [5, 5]},
        "cases": {f"patient_{i}": {} for i in range(4)},
        "modality": modality,
        "highest": 255.0,
    }
    plan = ScreenerPlanner(fingerprint, "Dataset901_Tiny", preset="cpu", width=4).plan()
    return plan.with_settings(plan.settings.override(["distillation.learns=score"]))


def checkpoint_of(plan: Plan, folder: Path) -> Path:
    network = build_unet(plan, plan.channels, 1, seed=0)
    names = {str(c): "x" for c in range(plan.channels)}
    description = {"channel_names": names, "labels": {"background": 0}, "file_ending": ".png"}
    extra = {"plan": plan, "score_statistics": STATISTICS}
    path = folder / "distillation.pth"
    checkpoint = stock_checkpoint(network, plan, description, extra=extra)
    torch.save(checkpoint_without_cases(checkpoint), path)
    return path


@pytest.fixture(params=["grey", "colours", "mr"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return planned(str(request.param))


def test_a_student_is_written_and_read(plan: Plan, tmp_path: Path) -> None:
    found = read_stage(checkpoint_of(plan, tmp_path), STUDENT)
    assert found["init_args"]["configuration"] == plan.configuration_name
    assert found["plan"].channels == plan.channels
    assert len(found["inference_allowed_mirroring_axes"]) == len(plan.configuration["patch_size"])


@pytest.mark.parametrize("stage", ["descriptor", "condition"])
def test_stages_behind_a_student_are_read(plan: Plan, stage: str, tmp_path: Path) -> None:
    network = stage_unet(plan, stage, 0)
    checkpoint = stock_checkpoint(network, plan, {"labels": {"background": 0}})
    path = tmp_path / f"{stage}.pth"
    torch.save(checkpoint_without_cases({**checkpoint, "plan": plan}), path)
    found = read_stage(path, StageFile("ScreenerPlans", stage))
    assert same_tensors(found["network_weights"], network.state_dict())


def test_a_student_travels(plan: Plan, empty_world: Any, tmp_path: Path) -> None:
    """Of the rarity of values, which needs no other stage."""
    target = replace(plan.settings.distillation, target=RARITY)
    plan = plan.with_settings(replace(plan.settings, distillation=target))
    write_json(empty_world.preprocessed / "ScreenerPlans.json", plan.to_dict())
    network = build_unet(plan, plan.channels, 1, seed=0)
    description = {"channel_names": {str(c): "x" for c in range(plan.channels)}, "labels": {}}
    figures = {"figures": [0.5], "train_losses": [1.0]}
    log = {"logging": {"values": figures, "reference": 0.1}, "best_figure": 0.5, "global_step": 9}
    extra = {"plan": plan.to_dict(), "score_statistics": STATISTICS, **log}
    own = stage_folder("Dataset901_Tiny", "distillation", "ScreenerPlans")
    own.mkdir(parents=True)
    torch.save(stock_checkpoint(network, plan, description, extra=extra), own / FINAL)
    export_model(ExportRequest(901, "ScreenerPlans"), tmp_path / "model.zip")
    assert install_model(tmp_path / "model.zip", number=17).dataset == "Dataset017_Tiny"
    folder = stage_folder(17, "distillation", "ScreenerPlans")
    assert folder.parent.name == f"DistillationTrainer__ScreenerPlans__{plan.configuration_name}"
    student, installed, _ = ModelRef("17", "ScreenerPlans").load(torch.device("cpu"))
    assert installed.settings.preprocessing == plan.settings.preprocessing
    assert same_tensors(student.network.state_dict(), network.state_dict())


def test_a_file_that_names_another_configuration_is_refused(plan: Plan, tmp_path: Path) -> None:
    values = tmp_path / "plan.json", tmp_path / "dataset.json"
    write_json(values[0], plan_without_cases(plan))
    write_json(values[1], {})
    other = {"2d": "3d_fullres", "3d_fullres": "2d"}[plan.configuration_name]
    members = {"plans/ScreenerPlans.json": (1, ""), "dataset.json": (1, "")}
    manifest = Manifest("Dataset901_Tiny", "ScreenerPlans", "student", other, members, {})
    with pytest.raises(ScreenerError, match=f"and model.json says {other}"):
        check_contents(manifest, dict(zip(members, values, strict=True)))


def test_a_student_of_another_configuration_is_refused(plan: Plan, tmp_path: Path) -> None:
    path = checkpoint_of(plan, tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    other = {"2d": "3d_fullres", "3d_fullres": "2d"}[plan.configuration_name]
    checkpoint["init_args"]["configuration"] = other
    torch.save(checkpoint, path)
    with pytest.raises(ScreenerError, match="made by no stage of ours"):
        read_stage(path, STUDENT)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("conv_op", "torch.nn.modules.conv.Conv1d"),
        ("norm_op", "torch.nn.modules.batchnorm.BatchNorm2d"),
        ("image_reader_writer", "NibabelIO"),
        ("normalization_schemes", ["ZScoreNormalization", "CTNormalization"]),
    ],
)
def test_code_that_does_not_belong_to_the_configuration(plan: Plan, key: str, value: Any) -> None:
    values = plan_without_cases(plan)
    assert check_plan(values, "ScreenerPlans").values == values
    block = values["configurations"][plan.configuration_name]
    network = block["architecture"]["arch_kwargs"]
    place: dict[str, Any] = next(p for p in (values, block, network) if key in p)
    place[key] = value
    with pytest.raises(ScreenerError, match=f"{key} is "):
        check_plan(values, "ScreenerPlans")


def test_networks_of_volumes_in_a_plan_of_pictures_are_refused() -> None:
    values = plan_without_cases(planned("grey"))
    network = values["configurations"]["2d"]["architecture"]["arch_kwargs"]
    network["conv_op"] = "torch.nn.modules.conv.Conv3d"
    with pytest.raises(ScreenerError, match="conv_op is 'torch.nn.modules.conv.Conv3d'"):
        check_plan(values, "ScreenerPlans")


def test_the_card_says_what_the_images_are(plan: Plan) -> None:
    description = {
        "dataset": "Dataset901_Tiny",
        "plans_name": "ScreenerPlans",
        "description": "",
        "license": None,
        "scans": {"train": 9, "validation": 1, "test": 0, "normal": 0, "left_out": 0},
        "settings": main_settings(plan),
        "training": {},
        "score_statistics": STATISTICS,
        "calibration": {},
        "teacher_plans": None,
        "versions": {},
    }
    card = model_card(description)
    pictures = plan.configuration_name == "2d"
    assert ("Unlabelled pictures: 9 to train" if pictures else "MR: 9 scans to train") in card
    assert f"network of `{plan.configuration_name}`" in card
    assert "known to be normal" not in card
    description["scans"] = {**description["scans"], "normal": 3}
    assert "to train on (3 of them known to be normal), 1 to validate" in model_card(description)
