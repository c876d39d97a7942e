"""The network block of the plan: nnU-Net's own classes, in nnU-Net's own words."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from screener_nnu.planners.grid import strides_and_kernels
from screener_nnu.planners.presets import Preset
from screener_nnu.plans import Shape, Spacing

_MODULE = "dynamic_network_architectures.architectures.unet"
_RESIDUAL_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6)


def plan_architecture(spacing: Spacing, patch: Shape, preset: Preset) -> dict[str, Any]:
    """nnU-Net's `architecture` block for a patch: residual encoder or plain UNet."""
    strides, kernels, _ = strides_and_kernels(spacing, patch)
    stages, axes = len(strides), len(strides[0])
    arguments: dict[str, Any] = {
        "n_stages": stages,
        "features_per_stage": [
            min(preset.max_width, preset.base_width * 2**i) for i in range(stages)
        ],
        "conv_op": f"torch.nn.modules.conv.Conv{axes}d",
        "kernel_sizes": kernels,
        "strides": strides,
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{axes}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    if preset.residual_encoder:
        name = "ResidualEncoderUNet"
        arguments["n_blocks_per_stage"] = list(_RESIDUAL_BLOCKS[:stages])
        arguments["n_conv_per_stage_decoder"] = [1] * (stages - 1)
    else:
        name = "PlainConvUNet"
        arguments["n_conv_per_stage"] = [2] * stages
        arguments["n_conv_per_stage_decoder"] = [2] * (stages - 1)
    return {
        "network_class_name": f"{_MODULE}.{name}",
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def feature_elements(architecture: dict[str, Any], patch: Shape) -> tuple[float, int]:
    """Elements of all feature maps of one crop, as nnU-Net counts them, and parameters.

    The network is built without memory for its weights, so this works on any login node.
    """
    return _feature_elements(repr(architecture), patch)


@lru_cache(maxsize=256)
def _feature_elements(architecture_repr: str, patch: Shape) -> tuple[float, int]:
    import ast

    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    architecture = ast.literal_eval(architecture_repr)
    with torch.device("meta"):
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            input_channels=1,
            output_channels=2,
            allow_init=False,
            deep_supervision=False,
        )
    axes = len(architecture["arch_kwargs"]["strides"][0])
    elements = float(network.compute_conv_feature_map_size(patch[-axes:]))
    return elements, sum(p.numel() for p in network.parameters())
