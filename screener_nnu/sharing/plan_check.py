"""The check of a stranger's plan: nnU-Net imports what a plan names, and writes where it says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import CONFIGURATIONS, PICTURES, VOLUMES, Plan
from screener_nnu.sharing.manifest import is_dataset_name, is_plain_name
from screener_nnu.sharing.scrub import case_names

_UNETS = "dynamic_network_architectures.architectures.unet"
_RESAMPLING = ("resample_torch_fornnunet", "resample_data_or_seg_to_shape")
# Values that become code: those that our planner writes, and no others.
_CODE: dict[str, tuple[Any, ...]] = {
    "label_manager": ("LabelManager",),
    "preprocessor_name": ("DefaultPreprocessor",),
    "resampling_fn_data": _RESAMPLING,
    "resampling_fn_seg": _RESAMPLING,
    "resampling_fn_probabilities": _RESAMPLING,
    "network_class_name": (f"{_UNETS}.PlainConvUNet", f"{_UNETS}.ResidualEncoderUNet"),
    "_kw_requires_import": (["conv_op", "norm_op", "dropout_op", "nonlin"],),
    "dropout_op": (None,),
    "nonlin": ("torch.nn.LeakyReLU",),
}
_CODE_OF: dict[str, dict[str, tuple[Any, ...]]] = {
    VOLUMES: {
        **_CODE,
        "image_reader_writer": ("SimpleITKIO",),
        "normalization_schemes": (["CTNormalization"], ["ZScoreNormalization"]),
        "conv_op": ("torch.nn.modules.conv.Conv3d",),
        "norm_op": ("torch.nn.modules.instancenorm.InstanceNorm3d",),
    },
    PICTURES: {
        **_CODE,
        "image_reader_writer": ("NaturalImage2DIO",),
        "normalization_schemes": (["CTNormalization"], ["CTNormalization"] * 3),
        "conv_op": ("torch.nn.modules.conv.Conv2d",),
        "norm_op": ("torch.nn.modules.instancenorm.InstanceNorm2d",),
    },
}
_PLAN_KEYS = {
    "dataset_name",
    "plans_name",
    "original_median_spacing_after_transp",
    "original_median_shape_after_transp",
    "image_reader_writer",
    "transpose_forward",
    "transpose_backward",
    "configurations",
    "experiment_planner_used",
    "label_manager",
    "foreground_intensity_properties_per_channel",
    "screener",
}
_CONFIGURATION_KEYS = {
    "data_identifier",
    "preprocessor_name",
    "batch_size",
    "patch_size",
    "median_image_size_in_voxels",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_seg",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg_kwargs",
    "resampling_fn_probabilities",
    "resampling_fn_probabilities_kwargs",
    "batch_dice",
    "architecture",
}
_ARCHITECTURE_KEYS = {"network_class_name", "arch_kwargs", "_kw_requires_import"}
_NETWORK_KEYS = {
    "n_stages",
    "features_per_stage",
    "conv_op",
    "kernel_sizes",
    "strides",
    "conv_bias",
    "norm_op",
    "norm_op_kwargs",
    "dropout_op",
    "dropout_op_kwargs",
    "nonlin",
    "nonlin_kwargs",
}
_DEPTHS = {
    "n_blocks_per_stage",
    "n_conv_per_stage",
    "n_conv_per_stage_decoder",
}
_MAX_STAGES, _MAX_WIDTH, _MAX_DEPTH = 16, 8192, 64


def check_plan(values: Any, plans_name: str) -> Plan:
    """Reads and checks a plan of a model file, at export as well as before it is installed.

    Raises:
        ScreenerError: no plan of ours, keys that we never write, names of code that our planner
            would not write, names that lead out of their folder, or names of cases.
    """
    try:
        _check_keys(values)
        plan = Plan.from_dict(values)
        arguments = plan.architecture["arch_kwargs"]
        for part in (plan.values, plan.configuration, plan.architecture, arguments):
            _check_code(part, _CODE_OF[plan.configuration_name])
        _check_size(arguments)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ScreenerError(f"the plan {plans_name} is none of ours ({error!r})") from error
    _check_names(plan, plans_name)
    if case_names(plan):
        raise ScreenerError(f"the plan {plans_name} names cases, which a model file never does")
    return plan


def same_values(first: Any, second: Any) -> bool:
    """Whether two plans say the same, one of them perhaps with tuples for lists."""
    return bool(json.loads(json.dumps(first)) == json.loads(json.dumps(second)))


def _check_keys(plan: Any) -> None:
    configurations = plan["configurations"]
    name = next((name for name in CONFIGURATIONS if name in configurations), VOLUMES)
    architecture = configurations[name]["architecture"]
    parts = (
        ("plan", plan, _PLAN_KEYS),
        ("configurations", configurations, {name}),
        (name, configurations[name], _CONFIGURATION_KEYS),
        ("architecture", architecture, _ARCHITECTURE_KEYS),
        ("arch_kwargs", architecture["arch_kwargs"], _NETWORK_KEYS | _DEPTHS),
    )
    for where, part, known in parts:
        odd = sorted(str(key) for key in set(part) - known)
        if odd:
            raise ScreenerError(
                f"'{where}' has the entries {odd[:5]}, which no plan of ours has: remove them from "
                "the plan that the model is made from"
            )
    missing = sorted(_PLAN_KEYS - set(plan))
    if missing:
        raise ScreenerError(f"the plan lacks {', '.join(missing)}")


def _check_code(part: Mapping[str, Any], code: Mapping[str, tuple[Any, ...]]) -> None:
    for key, allowed in code.items():
        if key in part and part[key] not in allowed:
            raise ScreenerError(
                f"{key} is {part[key]!r}; a plan of a model file may name {allowed} only, since "
                "nnU-Net runs what stands there"
            )


def _check_size(arguments: Mapping[str, Any]) -> None:
    """Bounds the networks that are built while a file is being checked."""
    stages, widths = int(arguments["n_stages"]), arguments["features_per_stage"]
    depths = [n for key in _DEPTHS & set(arguments) for n in arguments[key]]
    fits = (
        1 < stages <= _MAX_STAGES
        and len(widths) == stages
        and all(0 < n <= _MAX_WIDTH for n in widths)
        and len(depths) <= 2 * _MAX_STAGES
        and all(0 < n <= _MAX_DEPTH for n in depths)
    )
    if not fits:
        raise ScreenerError(f"the network has an absurd size: {stages} stages, widths {widths}")


def _check_names(plan: Plan, plans_name: str) -> None:
    if plan.name != plans_name:
        raise ScreenerError(f"the plan {plans_name} calls itself {plan.name!r}")
    if not is_dataset_name(plan.dataset):
        raise ScreenerError(f"{plan.dataset!r} cannot name a data set")
    settings = plan.settings
    identifiers = (
        plan.configuration["data_identifier"],
        settings.data_identifier,
        settings.density.descriptor_plans or plans_name,
        settings.density.condition_plans or plans_name,
        settings.distillation.density_plans or plans_name,
    )
    odd = [name for name in identifiers if not is_plain_name(name)]
    if odd:
        raise ScreenerError(f"the plan {plans_name} names a folder {odd[0]!r}, which leads astray")
