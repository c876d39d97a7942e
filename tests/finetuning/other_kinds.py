"""The tiny world with pictures, grey or in colours, or MR in place of CT."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch

from screener_nnu.plans import StockPlan
from screener_nnu.preprocessing.pictures import write_picture

_ct = runpy.run_path(str(Path(__file__).with_name("conftest.py")))
World, CASES = _ct["World"], _ct["CASES"]
CHANNELS = {"grey": 1, "colours": 3, "mr": 1}
NAMES = {
    "grey": {"0": "grey"},
    "colours": {"0": "R", "1": "G", "2": "B"},
    "mr": {"0": "T1"},
}
ROWS, COLUMNS = 40, 36


def plan_of(kind: str) -> StockPlan:
    """The tiny plan, for images of a kind."""
    values = _ct["tiny_plan"]().to_dict()
    block = values["configurations"].pop("3d_fullres")
    if kind == "mr":
        block["normalization_schemes"] = ["ZScoreNormalization"]
        values["configurations"]["3d_fullres"] = block
        return StockPlan(values)
    channels = CHANNELS[kind]
    constants = {"percentile_00_5": 0.5, "percentile_99_5": 250.0, "min": 0.0, "max": 255.0}
    values["foreground_intensity_properties_per_channel"] = {
        str(c): {**constants, "mean": 80.0 + 20 * c, "median": 80.0, "std": 50.0 + 5 * c}
        for c in range(channels)
    }
    values["image_reader_writer"] = "NaturalImage2DIO"
    block |= {
        "data_identifier": "ScreenerPlans_2d",
        "patch_size": [32, 32],
        "spacing": [1.0, 1.0],
        "median_image_size_in_voxels": [float(ROWS), float(COLUMNS)],
        "normalization_schemes": ["CTNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
    }
    network = block["architecture"]["arch_kwargs"]
    for key in ("kernel_sizes", "strides"):
        network[key] = [axes[1:] for axes in network[key]]
    network["conv_op"] = "torch.nn.modules.conv.Conv2d"
    network["norm_op"] = "torch.nn.modules.instancenorm.InstanceNorm2d"
    values["configurations"]["2d"] = block
    return StockPlan(values)


def network_of(plan: StockPlan) -> torch.nn.Module:
    """nnU-Net's own network of a plan, with one output."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    torch.manual_seed(0)
    block = plan.architecture
    arguments = (block["network_class_name"], block["arch_kwargs"], block["_kw_requires_import"])
    return get_network_from_plans(*arguments, plan.channels, 1, deep_supervision=True)


def describe(kind: str, **changes: Any) -> dict[str, Any]:
    """`dataset.json` of the labelled images."""
    return {
        "channel_names": NAMES[kind],
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz" if kind == "mr" else ".png",
        **changes,
    }


def write_case(raw: Path, case: str, kind: str, seed: int) -> None:
    """An image with a bright disc or ball, and its label."""
    rng = np.random.default_rng(seed)
    shape = (30, 32, 34) if kind == "mr" else (1, ROWS, COLUMNS)
    centre = np.array([n // 2 for n in shape]) + np.array([0, *rng.integers(-4, 5, 2)])
    distance = ((np.indices(shape) - centre[:, None, None, None]) ** 2).sum(0)
    label = (distance < 25).astype(np.uint8)
    image = rng.normal(90, 12, (CHANNELS[kind], *shape)) + 100 * label
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True, exist_ok=True)
    if kind == "mr":
        body = ((np.indices(shape)[1:] - 16) ** 2).sum(0) < 15**2
        files = {"imagesTr": 7.0 * image[0] * body, "labelsTr": label}
        for folder, array in files.items():
            volume = SimpleITK.GetImageFromArray(array.astype(np.uint16))
            volume.SetSpacing((1.2, 1.2, 1.5))
            end = "_0000.nii.gz" if folder == "imagesTr" else ".nii.gz"
            SimpleITK.WriteImage(volume, str(raw / folder / f"{case}{end}"))
        return
    pixels = np.clip(image[:, 0], 0, 255).astype(np.uint8)
    write_picture(pixels, raw / "imagesTr" / f"{case}_0000.png")
    write_picture(label, raw / "labelsTr" / f"{case}.png")


def make_world(root: Path, kind: str) -> Any:
    """A labelled data set, and the plan and student of a pre-trained one."""
    from screener_nnu.finetuning.checkpoint import stock_checkpoint

    world = World(root)
    for index, case in enumerate(CASES):
        write_case(world.raw, case, kind, index)
    (world.raw / "dataset.json").write_text(json.dumps(describe(kind)))
    plan = plan_of(kind)
    world.plan_file.parent.mkdir(parents=True)
    world.plan_file.write_text(json.dumps(plan.to_dict()))
    student = student_of(world, plan)
    student.parent.mkdir(parents=True)
    torch.save(stock_checkpoint(network_of(plan), plan, describe(kind)), student)
    return world


def student_of(world: Any, plan: StockPlan) -> Path:
    """Checkpoint of the student."""
    name = f"DistillationTrainer__ScreenerPlans__{plan.configuration_name}"
    return world.student.parents[2] / name / "fold_all" / "checkpoint_final.pth"
