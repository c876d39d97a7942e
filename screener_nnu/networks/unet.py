"""The plan's UNet with a linear 1x1x1 output at input resolution."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import nn

from screener_nnu.networks.planes import is_of_planes, take_depth
from screener_nnu.plans import StockPlan


def build_unet(
    plan: StockPlan,
    in_channels: int,
    out_channels: int,
    seed: int | None = None,
    width: float = 1.0,
    deep_supervision: bool = False,
) -> nn.Module:
    """nnU-Net's network of the plan.

    Args:
        plan: that describes it.
        in_channels, out_channels: of the network.
        seed: of the initial weights; without it torch's global state decides.
        width: channels of each stage, as a fraction of the plan's.
        deep_supervision: outputs of all resolutions of the decoder, finest first.

    Returns:
        A network (B, in_channels, D, H, W) -> (B, out_channels, D, H, W), with deep supervision a
        list of such outputs. Without, the heads of lower resolutions, which get no gradient, are
        frozen: distributed training would wait for them. A network of pictures works on planes.
    """
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    block = plan.architecture
    arguments = dict(block["arch_kwargs"])
    arguments["features_per_stage"] = [
        max(1, round(width * features)) for features in arguments["features_per_stage"]
    ]
    # Built on the CPU; the default would open a context on every GPU of the machine.
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        network = get_network_from_plans(
            block["network_class_name"],
            arguments,
            block["_kw_requires_import"],
            in_channels,
            out_channels,
            allow_init=True,
            deep_supervision=deep_supervision,
        )
    *lower, output = network.decoder.seg_layers
    for head in lower:
        head.requires_grad_(deep_supervision)
    _compute_in_float32(output)
    return take_depth(network) if is_of_planes(network) else network


def _compute_in_float32(layer: nn.Module) -> None:
    """Keeps a layer out of mixed precision: in bfloat16 a score would have some 200 values.

    The state dictionary stays nnU-Net's.
    """
    # Bound to the layer, so that a copy of the network is bound to its own.
    layer.forward = MethodType(_float32_forward, layer)  # type: ignore[method-assign]


def _float32_forward(layer: nn.Module, features: torch.Tensor) -> torch.Tensor:
    kind = features.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return type(layer).forward(layer, features)
    with torch.autocast(kind, enabled=False):
        return type(layer).forward(layer, features.float())


def in_full_precision(kind: str) -> AbstractContextManager[Any]:
    """Turns mixed precision off, where it is on: a tracer would write the switch down."""
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def low_precision(device: torch.device, allow_cpu: bool) -> torch.autocast:
    """Mixed precision of the UNets where the device computes in it, otherwise a no-op.

    CUDA: bfloat16 where the hardware has it, else float16 (which needs a gradient scaler). CPU:
    bfloat16 on processors with the instructions (a training step there is about twice as fast), if
    allowed.
    """
    if device.type == "cuda":
        # Not `is_bf16_supported`, which also says yes where bfloat16 is emulated, slowly.
        ampere = torch.cuda.get_device_capability(device) >= (8, 0)
        kind = torch.bfloat16 if ampere else torch.float16
        return torch.autocast("cuda", dtype=kind)
    native = device.type == "cpu" and allow_cpu and _cpu_computes_bfloat16()
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=native)


def method_precision(mixed: bool, device: torch.device, allow_cpu: bool) -> torch.autocast:
    """`low_precision` of networks that may compute in it (`mixed`), otherwise none."""
    return low_precision(device, allow_cpu) if mixed else torch.autocast(device.type, enabled=False)


def _cpu_computes_bfloat16() -> bool:
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())
