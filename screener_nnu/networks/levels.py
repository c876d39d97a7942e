"""The maps of all stages of a UNet of nnU-Net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Shape

OUTPUT = "output"


class Level(NamedTuple):
    """Width and stride (z, y, x) of a map."""

    channels: int
    stride: Shape


def levels_of(network: nn.Module) -> dict[str, Level]:
    """Levels of a UNet by name, see `descriptors.levels.LevelsDescriptor`.

    Raises:
        ScreenerError: the network has no encoder and decoder as those of nnU-Net have.
    """
    try:
        encoder: Any = network.encoder
        decoder: Any = network.decoder
        strides, stride = [], (1, 1, 1)
        for step in encoder.strides:
            # A network of planes has strides in plane alone.
            per_axis = [1, *step][-3:]
            stride = tuple(a * int(b) for a, b in zip(stride, per_axis, strict=True))  # type: ignore[assignment]
            strides.append(stride)
        widths = [int(n) for n in encoder.output_channels]
        stages, output = len(decoder.stages), int(decoder.seg_layers[-1].out_channels)
    except (AttributeError, TypeError, ValueError) as error:
        raise ScreenerError(
            f"{type(network).__name__} has no levels to choose from: they are those of nnU-Net's "
            "UNets, which have an encoder and a decoder"
        ) from error
    sizes = [Level(*size) for size in zip(widths, strides, strict=True)]
    levels = {f"encoder_{k}": size for k, size in enumerate(sizes)}
    levels |= {f"decoder_{k}": size for k, size in enumerate(sizes[:stages])}
    return levels | {OUTPUT: Level(output, strides[0])}


def stages_of(network: nn.Module) -> dict[str, Level]:
    """The same without the output: the levels of encoder and decoder."""
    return {name: level for name, level in levels_of(network).items() if name != OUTPUT}


def deepest_stride(network: Any) -> Shape:
    """Of a UNet: edges of images that it takes are multiples of it."""
    return levels_of(network)[f"encoder_{len(network.encoder.stages) - 1}"].stride


def run_levels(
    network: nn.Module,
    image: torch.Tensor,
    take: Callable[[str, torch.Tensor], None],
    decoder: bool = True,
) -> None:
    """Hands over every level of a network as soon as it is there.

    Args:
        network: UNet of nnU-Net.
        image: as its encoder takes it.
        take: is given the name and the map of each level.
        decoder: whether those of the decoder, and the output, are wanted.
    """
    encode: Any = network.encoder
    decode: Any = network.decoder
    skips = encode(image)
    for k, maps in enumerate(skips):
        take(f"encoder_{k}", maps)
    if not decoder:
        return
    # Hooks live for one call: a copy of the network would keep those of the original.
    hooks = [
        stage.register_forward_hook(lambda _, __, maps, k=k: take(f"decoder_{k}", maps))
        for k, stage in enumerate(reversed(decode.stages))
    ]
    try:
        outputs = decode(skips)
    finally:
        for hook in hooks:
            hook.remove()
    # Finest first, where the network has deep supervision.
    take(OUTPUT, outputs[0] if isinstance(outputs, (list, tuple)) else outputs)
