"""The checkpoint that stock nnU-Net starts from, and its check before use.

See Also:
    `nnunetv2.run.load_pretrained_weights`: what reads `network_weights`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from screener_nnu.errors import ScreenerError
from screener_nnu.networks.probed import backbone_of
from screener_nnu.plans import StockPlan
from screener_nnu.stage_checkpoint import check_finite

STOCK_TRAINER = "nnUNetTrainer"
# What nnU-Net's own checkpoints hold beside tensors: the numbers of their log, which NumPy makes
# with a function that has moved between its versions.
_MAKE_NUMBER = np.float64(0).__reduce__()[0]
_NUMBERS: list[Any] = [
    (_MAKE_NUMBER, "numpy.core.multiarray.scalar"),
    (_MAKE_NUMBER, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64", "bool")),
]
#: The string by which nnU-Net's own loader leaves segmentation heads out.
SEGMENTATION_HEADS = ".seg_layers."
_CHECKPOINT_TO_GIVE = "give the checkpoint_final.pth of one of our stages or of an nnU-Net training"
_WRAPPERS = ("_orig_mod", "module")
_CITATION = {
    "type": "Pretraining-Method",
    "name": "Screener: Self-supervised Pathology Segmentation in Medical CT Images",
}


def stock_checkpoint(
    network: nn.Module,
    plan: StockPlan,
    dataset_json: Mapping[str, Any],
    *,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Builds a checkpoint that stock nnU-Net loads with `-pretrained_weights`.

    It holds tensors and plain Python values only, so `torch.load(weights_only=True)` reads it.

    Args:
        network: network built by nnU-Net from the plan; wrappers of `torch.compile` and of
            distributed training are taken off.
        plan: the plan the network was built from.
        dataset_json: `dataset.json` of the pre-trained dataset.
        extra: more entries at the top level; they may not hide the ones made here.

    Raises:
        ValueError: an entry of `extra` has a name that is taken.
    """
    plain_plan = plan.to_dict()
    plain_plan.pop("continue_training", None)
    inner = unwrap(network)
    checkpoint = {
        "network_weights": _cpu_weights(inner),
        "trainer_name": STOCK_TRAINER,
        "init_args": {
            "plans": plain_plan,
            "configuration": plan.configuration_name,
            "fold": "all",
            "dataset_json": json.loads(json.dumps(dict(dataset_json))),
        },
        "inference_allowed_mirroring_axes": tuple(range(len(plan.configuration["patch_size"]))),
        "nnssl_adaptation_plan": _adaptation_plan(inner, plan),
        "citations": [dict(_CITATION)],
    }
    taken = sorted(set(checkpoint) & set(extra or {}))
    if taken:
        raise ValueError(f"entries {', '.join(taken)} belong to the checkpoint itself")
    return {**checkpoint, **(extra or {})}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU: tensors, plain values and NumPy's numbers only.

    Raises:
        ScreenerError: no such file, not readable as plain values, or without network weights, or
            they are no finite numbers.
    """
    if not path.is_file():
        raise ScreenerError(f"no checkpoint {path.absolute()}; {_CHECKPOINT_TO_GIVE}")
    try:
        with torch.serialization.safe_globals(_NUMBERS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # Other pickled objects could run code of a stranger.
        reason = (str(error).splitlines() or ["it ends too early"])[0]
        raise ScreenerError(
            f"{path} cannot be read as tensors and plain values: {reason}; {_CHECKPOINT_TO_GIVE}"
        ) from error
    weights = checkpoint.get("network_weights") if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ScreenerError(
            f"{path} holds no 'network_weights', tensors by their names; {_CHECKPOINT_TO_GIVE}"
        )
    try:
        check_finite({"network_weights": weights})
    except ScreenerError as error:
        raise ScreenerError(f"{path}: {error}; {_CHECKPOINT_TO_GIVE}") from error
    found: dict[str, Any] = checkpoint
    return found


def load_weights(network: nn.Module, path: Path) -> None:
    """Gives a network, or that of a probe, all weights of a checkpoint but those of the heads.

    The result is that of `nnunetv2.run.load_pretrained_weights`, which reads files with
    `weights_only=False` and to the device that they were saved on, be it there or not.

    Raises:
        ScreenerError: see `read_checkpoint`.
        RuntimeError: a tensor is missing or has another shape; see `compare.require_match`.
    """
    weights = read_checkpoint(path)["network_weights"]
    inner = backbone_of(unwrap(network))
    own = inner.state_dict()
    heads = {name: tensor for name, tensor in own.items() if SEGMENTATION_HEADS in name}
    inner.load_state_dict({**{name: weights[name] for name in own if name in weights}, **heads})


def check_same_input(checkpoint: Mapping[str, Any], plan: StockPlan) -> None:
    """Checks that a plan feeds the network what it was trained on.

    A changed spacing or intensity window fits every tensor shape and still ruins the weights.

    Raises:
        ScreenerError: spacing, normalisation or the four constants of a channel differ.
    """
    odd = input_differences(checkpoint, plan)
    if odd:
        raise ScreenerError(
            "the plan has changed since these weights were trained (" + "; ".join(odd) + "); "
            "train that stage again with this plan, or restore the plan"
        )


def input_differences(checkpoint: Mapping[str, Any], plan: StockPlan) -> list[str]:
    """What a plan feeds the network otherwise than a checkpoint was trained on, a line each.

    Empty as well for a checkpoint that does not hold its plan.
    """
    arguments = checkpoint.get("init_args")
    trained_plan = arguments.get("plans") if isinstance(arguments, dict) else None
    if trained_plan is None:
        return []
    current = input_settings(plan)
    try:
        trained = input_settings(StockPlan(trained_plan))
    except (KeyError, TypeError) as missing:
        return [f"the plan it was trained with has no {missing}"]
    return [
        f"{key}: trained with {trained[key]}, plan says {current[key]}"
        for key in current
        if trained[key] != current[key]
    ]


def input_settings(plan: StockPlan) -> dict[str, Any]:
    """What decides the image that the network sees: spacing, axes, resampling, normalisation."""
    block = plan.configuration
    settings = {
        key: block.get(key) for key in ("spacing", "normalization_schemes", "resampling_fn_data")
    }
    resampling = block.get("resampling_fn_data_kwargs") or {}
    settings["resampling_fn_data_kwargs"] = {
        key: value for key, value in resampling.items() if key != "num_threads"
    }
    settings["transpose_forward"] = plan.values.get("transpose_forward")
    if plan.standardises:
        found = [plan.intensities_of(channel) for channel in range(plan.channels)]
        settings["intensities"] = found[0] if len(found) == 1 else found
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def unwrap(network: nn.Module) -> nn.Module:
    """The network without the wrappers of `torch.compile` and of distributed training."""
    while inner := next((n for w in _WRAPPERS if (n := getattr(network, w, None))), None):
        network = inner  # they may come in any order
    return network


def _cpu_weights(network: nn.Module) -> dict[str, Tensor]:
    """State dict in CPU float32 whose tensors still share storage.

    nnU-Net registers each convolution under several names; a copy per name makes the file four
    times as large.
    """
    copies: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    weights = {}
    for name, tensor in network.state_dict().items():
        identity = (tensor.data_ptr(), tuple(tensor.shape))
        if identity not in copies:
            kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
            copies[identity] = tensor.detach().to("cpu", kind)
        weights[name] = copies[identity]
    return weights


def _adaptation_plan(network: nn.Module, plan: StockPlan) -> dict[str, Any]:
    """The block that `nnUNetv2_train_pretrained` of later nnU-Net versions reads."""
    block, architecture = plan.configuration, plan.architecture
    in_proj = getattr(network, "keys_to_in_proj", None)
    return {
        "architecture_plans": {
            "arch_class_name": architecture["network_class_name"],
            "arch_kwargs": architecture["arch_kwargs"],
            "arch_kwargs_requiring_import": architecture["_kw_requires_import"],
        },
        "pretrain_plan": {
            "configurations": {
                plan.configuration_name: {
                    "spacing": block["spacing"],
                    "patch_size": block["patch_size"],
                }
            }
        },
        "pretrain_num_input_channels": plan.channels,
        "recommended_downstream_patchsize": block["patch_size"],
        "key_to_encoder": getattr(network, "key_to_encoder", None),
        "key_to_stem": getattr(network, "key_to_stem", None),
        "keys_to_in_proj": None if in_proj is None else list(in_proj),
        "key_to_lpe": getattr(network, "key_to_lpe", None),
    }
