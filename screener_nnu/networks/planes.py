"""Networks of planes for images with a depth axis: it goes into the batch, and comes back."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import nn


def is_of_planes(network: Any) -> bool:
    """Whether a UNet of nnU-Net works on planes, (B, C, H, W)."""
    return len(network.encoder.strides[0]) == 2


def to_planes(image: torch.Tensor) -> torch.Tensor:
    """Planes (B D, C, H, W) of images (B, C, D, H, W)."""
    return image.transpose(1, 2).flatten(0, 1)


def from_planes(planes: torch.Tensor, batch: int) -> torch.Tensor:
    """Maps (B, C, D, H, W) of planes (B D, C, H, W)."""
    return planes.unflatten(0, (batch, -1)).transpose(1, 2)


def encoder_maps(network: Any, images: torch.Tensor) -> list[torch.Tensor]:
    """Maps (B, C, D, H, W) of all stages of a UNet's encoder, of a network of planes as well."""
    if not is_of_planes(network):
        return list(network.encoder(images))
    return [from_planes(maps, len(images)) for maps in network.encoder(to_planes(images))]


def decoded(network: Any, maps: list[torch.Tensor]) -> torch.Tensor:
    """Outputs (B, outputs, D, H, W) of a UNet from what `encoder_maps` gave."""
    if not is_of_planes(network):
        outputs: torch.Tensor = network.decoder(maps)
        return outputs
    return from_planes(network.decoder([to_planes(one) for one in maps]), len(maps[0]))


def take_depth(network: nn.Module) -> nn.Module:
    """Lets a network of planes take images (B, C, D, H, W), plane by plane.

    Its weights keep their names, so that stock nnU-Net reads them.
    """
    # Bound to the network, so that a copy is bound to its own.
    network.forward = MethodType(_forward, network)  # type: ignore[method-assign]
    return network


def _forward(network: nn.Module, image: torch.Tensor) -> Any:
    outputs = type(network).forward(network, to_planes(image))
    if isinstance(outputs, (list, tuple)):  # deep supervision
        return [from_planes(output, len(image)) for output in outputs]
    return from_planes(outputs, len(image))
