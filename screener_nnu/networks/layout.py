"""How the weights of convolutions lie in memory while they are trained."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


def for_training(network: nn.Module, device: torch.device) -> nn.Module:
    """Lays the weights of 3D convolutions out channels last where training is faster that way.

    On processors with AVX2 and nothing newer, forward and backward of the plan's UNet then take
    1.1 to 1.5 times less (`tests/benchmarks/benchmark_layout.py`); maps follow the weights. Other
    processors and GPUs were not measured, and stay as they are. Results differ by rounding.

    Args:
        network: on the device; changed in place.
        device: that it is trained on.
    """
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2":
        for module in network.modules():
            if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d)):
                weight = module.weight
                weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
    return network


def laid_out_plainly(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dictionary for a file, whatever `for_training` did to it.

    nnU-Net has a tensor under several names, which stays one tensor.
    """
    plain: dict[tuple[object, ...], torch.Tensor] = {}
    for value in weights.values():
        plain.setdefault(_identity(value), value.contiguous())
    return {name: plain[_identity(value)] for name, value in weights.items()}


def _identity(value: torch.Tensor) -> tuple[object, ...]:
    return value.data_ptr(), value.shape, value.stride(), value.dtype
