"""A tiny labelled dataset, and a tiny pre-trained one to start from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from screener_nnu.plans import StockPlan

TARGET, SOURCE = "Dataset502_Lesions", "Dataset901_Trunk"
CASES = [f"case_{i}" for i in range(6)]


@dataclass(frozen=True)
class World:
    """nnU-Net's three folders with both datasets."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        kinds = ("raw", "preprocessed", "results")
        return {f"nnUNet_{kind}": str(self.root / kind) for kind in kinds}

    @property
    def raw(self) -> Path:
        return self.root / "raw" / TARGET

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / TARGET

    @property
    def results(self) -> Path:
        return self.root / "results" / TARGET

    @property
    def plan_file(self) -> Path:
        return self.root / "preprocessed" / SOURCE / "ScreenerPlans.json"

    @property
    def student(self) -> Path:
        model = "DistillationTrainer__ScreenerPlans__3d_fullres"
        return self.root / "results" / SOURCE / model / "fold_all" / "checkpoint_final.pth"


def settings_of_ours() -> dict:
    """What the preset `cpu` plans for a scan with a name that must not travel."""
    from screener_nnu.planners.planner import ScreenerPlanner

    bounds = {"percentile_00_5": -1000.0, "percentile_99_5": 300.0}
    fingerprint = {
        "spacings": [[1.5, 1.5, 1.5]] * 2,
        "body_extents_mm": [[400.0, 320.0, 420.0]] * 2,
        "foreground_intensity_properties_per_channel": {"0": bounds},
        "hu_histogram": {"edges": [-1024.0, 0.0, 3072.0], "counts": [1, 1]},
        "cases": {"secret_patient_name": {}, "another_patient": {}},
    }
    return ScreenerPlanner(fingerprint, SOURCE, preset="cpu").plan().settings.to_dict()


def tiny_plan(widths: tuple[int, ...] = (4, 8, 8)) -> StockPlan:
    n = len(widths)
    values = {
        "dataset_name": SOURCE,
        "plans_name": "ScreenerPlans",
        "original_median_spacing_after_transp": [1.5, 1.2, 1.2],
        "original_median_shape_after_transp": [30, 32, 34],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ScreenerPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            "0": {
                "mean": -50.0,
                "median": -40.0,
                "std": 300.0,
                "min": -1000.0,
                "max": 1000.0,
                "percentile_00_5": -1000.0,
                "percentile_99_5": 300.0,
            }
        },
        "screener": settings_of_ours(),
        "configurations": {
            "3d_fullres": {
                "data_identifier": "ScreenerPlans_3d_fullres",
                "preprocessor_name": "DefaultPreprocessor",
                "batch_size": 2,
                "patch_size": [16, 16, 16],
                "median_image_size_in_voxels": [30.0, 32.0, 34.0],
                "spacing": [1.5, 1.5, 1.5],
                "normalization_schemes": ["CTNormalization"],
                "use_mask_for_norm": [False],
                "resampling_fn_data": "resample_torch_fornnunet",
                "resampling_fn_seg": "resample_torch_fornnunet",
                "resampling_fn_data_kwargs": {"is_seg": False, "force_separate_z": False},
                "resampling_fn_seg_kwargs": {"is_seg": True, "force_separate_z": False},
                "resampling_fn_probabilities": "resample_torch_fornnunet",
                "resampling_fn_probabilities_kwargs": {"is_seg": False, "force_separate_z": False},
                "architecture": {
                    "network_class_name": "dynamic_network_architectures.architectures.unet."
                    "PlainConvUNet",
                    "arch_kwargs": {
                        "n_stages": n,
                        "features_per_stage": list(widths),
                        "conv_op": "torch.nn.modules.conv.Conv3d",
                        "kernel_sizes": [[3, 3, 3]] * n,
                        "strides": [[1, 1, 1], *([[2, 2, 2]] * (n - 1))],
                        "n_conv_per_stage": [1] * n,
                        "n_conv_per_stage_decoder": [1] * (n - 1),
                        "conv_bias": True,
                        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                        "dropout_op": None,
                        "dropout_op_kwargs": None,
                        "nonlin": "torch.nn.LeakyReLU",
                        "nonlin_kwargs": {"inplace": True},
                    },
                    "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
                },
                "batch_dice": False,
            }
        },
    }
    return StockPlan(values)


def tiny_network(plan: StockPlan, heads: int = 1, seed: int = 0) -> torch.nn.Module:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    torch.manual_seed(seed)
    architecture = plan.architecture
    return get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        heads,
        deep_supervision=True,
    )


def labelled_json(cases: int = len(CASES)) -> dict:
    return {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }


def write_case(folder: Path, case: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = np.indices((30, 32, 34))
    centre = rng.integers(10, 20, 3)[:, None, None, None]
    label = (((grid - centre) ** 2).sum(0) < 25).astype(np.uint8)
    body = ((grid[1:] - 16) ** 2).sum(0) < 15**2
    image = np.where(body, rng.normal(40, 10, label.shape) + 100 * label, -1000)
    for kind, array in (("images", image.astype(np.int16)), ("labels", label)):
        (folder / f"{kind}Tr").mkdir(parents=True, exist_ok=True)
        volume = SimpleITK.GetImageFromArray(array)
        volume.SetSpacing((1.2, 1.2, 1.5))
        name = f"{case}_0000.nii.gz" if kind == "images" else f"{case}.nii.gz"
        SimpleITK.WriteImage(volume, str(folder / f"{kind}Tr" / name))


def make_world(root: Path) -> World:
    from screener_nnu.finetuning.checkpoint import stock_checkpoint

    world = World(root)
    for index, case in enumerate(CASES):
        write_case(world.raw, case, index)
    (world.raw / "dataset.json").write_text(json.dumps(labelled_json()))
    plan = tiny_plan()
    world.plan_file.parent.mkdir(parents=True)
    world.plan_file.write_text(json.dumps(plan.to_dict()))
    world.student.parent.mkdir(parents=True)
    source_json = {**labelled_json(), "labels": {"background": 0}}
    torch.save(stock_checkpoint(tiny_network(plan), plan, source_json), world.student)
    return world


def enter(world: World, patch: pytest.MonkeyPatch) -> None:
    """Makes nnU-Net and us use the folders of a world, in this process."""
    for name, value in world.environment.items():
        patch.setenv(name, value)
    patch.setenv("nnUNet_n_proc_DA", "0")
    torch.set_num_threads(1)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = make_world(tmp_path)
    enter(made, monkeypatch)
    return made
