"""Frozen networks of pictures from timm, with weights from a file or an installed package."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from screener_nnu.descriptors.backbone_weights import (
    State,
    bytes_of,
    fitted_state,
    packaged_weights,
    state_of,
)
from screener_nnu.descriptors.base import freeze
from screener_nnu.errors import ScreenerError
from screener_nnu.pretext_settings import PACKAGE

#: Of features_only networks: what PaDiM reads of a ResNet.
STRIDES = (4, 8, 16)
#: Which maps of a network are read: those of `STRIDES`, or that of its last convolution.
LEVELS, HEAD = "levels", "head"
# The authors of Lite0 take (x - 127) / 128 of 8-bit values.
_PACKAGED_NORMALISATION = (127 / 255, 128 / 255)
# Counts of training steps, which older files lack; nothing depends on them in evaluation.
_COUNTER = "num_batches_tracked"
# Of the last map of networks of photographs.
_LARGEST_STRIDE = 32


@dataclass(frozen=True)
class Backbone:
    """A network of RGB pictures and what it expects.

    Attributes:
        network: (n, 3, H, W) -> maps, for H and W that are multiples of the last stride.
        widths, strides: of the maps.
        mean, std: of each colour, for pictures in [0, 1].
        sha256: of the file of its weights.
    """

    network: nn.Module
    widths: tuple[int, ...]
    strides: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: bytes


def load_backbone(architecture: str, weights: str | Path, maps: str = LEVELS) -> Backbone:
    """A timm network without its layer of classes, frozen. Nothing is downloaded.

    Args:
        architecture: name in timm, without a tag of weights.
        weights: file with the state dictionary of that architecture (`.pth`, plain tensors); empty
            or `package` for those of the installed package, of `tf_efficientnet_lite0`.
        maps: `levels`, those of strides 4, 8 and 16, or `head`, the last one, whose mean over the
            positions is the vector of a picture.

    Raises:
        ScreenerError: timm knows no such name, or has no such maps; the file or the package is not
            there, holds something else, or its tensors do not fit.
    """
    check_architecture(architecture)
    origin = str(weights) or PACKAGE
    path = _weights_path(architecture, origin)
    data = bytes_of(path)
    state, sha256 = state_of(path, data), hashlib.sha256(data).digest()
    return backbone_of(architecture, state, origin, maps, sha256, f"{path} and {architecture}")


def backbone_of(
    architecture: str, state: State, origin: str, maps: str, sha256: bytes, what: str
) -> Backbone:
    """The frozen network that weights in memory belong to, see `load_backbone`.

    Args:
        architecture, maps: see `load_backbone`.
        state: of the whole network, perhaps without its layer of classes.
        origin: of the first weights, see `normalisation`.
        sha256: hash of the weights.
        what: weights and network, for what is said.
    """
    network = _cut(architecture) if maps == LEVELS else whole_network(architecture)
    _fill(network, architecture, state, what)
    mean, std = normalisation(architecture, origin)
    if maps == LEVELS:
        widths = tuple(network.feature_info.channels())
        return Backbone(freeze(network), widths, STRIDES, mean, std, sha256)
    last = _LastMap(network)
    freeze(last)
    width, stride = _size_of(last, architecture)
    return Backbone(last, (width,), (stride,), mean, std, sha256)


def empty_backbone(architecture: str, origin: str) -> Backbone:
    """The network of `load_backbone` with maps `levels`, whose weights will be filled in.

    Args:
        architecture: see `load_backbone`.
        origin: of the weights that it will have, see `normalisation`.
    """
    check_architecture(architecture)
    network = _cut(architecture)
    mean, std = normalisation(architecture, origin)
    widths = tuple(network.feature_info.channels())
    return Backbone(freeze(network), widths, STRIDES, mean, std, b"")


def check_architecture(architecture: str) -> None:
    """Refuses a name that timm does not know; the message holds names near it."""
    import timm

    if not timm.is_model(architecture) or "." in architecture:
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ScreenerError(f"timm has no architecture '{architecture}'{hint}")


def trainable_network(architecture: str, weights: str) -> Any:
    """A timm network without its layer of classes, to be trained.

    Args:
        architecture: name in timm, without a tag of weights.
        weights: `package`, a file, see `load_backbone`, or empty for random ones, which are drawn
            from torch's global state.

    Raises:
        ScreenerError: see `load_backbone`.
    """
    check_architecture(architecture)
    network = whole_network(architecture)
    if weights:
        path = _weights_path(architecture, weights)
        state = state_of(path, bytes_of(path))
        _fill(network, architecture, state, f"{path} and {architecture}")
    _size_of(_LastMap(network).eval(), architecture)
    return network.train()


def _weights_path(architecture: str, weights: str) -> Path:
    """File of the installed package's weights, or of those that are named."""
    return packaged_weights(architecture) if weights == PACKAGE else Path(weights).expanduser()


def normalisation(architecture: str, weights: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each colour that a network expects, for values in [0, 1].

    Args:
        architecture: name in timm.
        weights: `package`, or any others, which are taken to have timm's own values.
    """
    if weights == PACKAGE:
        mean, std = ((value,) * 3 for value in _PACKAGED_NORMALISATION)
        return mean, std
    import timm

    found: Any = timm.get_pretrained_cfg(architecture)
    return (tuple(found.mean), tuple(found.std)) if found else ((0.5,) * 3, (0.5,) * 3)


def whole_network(architecture: str) -> Any:
    """A timm network up to its last map, with random weights."""
    import timm

    network: Any = timm.create_model(architecture, pretrained=False)
    network.reset_classifier(0)
    return network


def _fill(network: Any, architecture: str, state: State, what: str) -> None:
    """Gives a network, perhaps one that is cut, the weights of a file."""
    import timm

    # Names and shapes alone; some networks cannot be built without memory.
    with torch.random.fork_rng(devices=[]):
        expected = timm.create_model(architecture, pretrained=False).state_dict()
    # timm may write a stage's number behind an underscore in place of a point.
    own = {name.replace(".", "_"): name for name in network.state_dict()}
    needed = [k for k in expected if k.replace(".", "_") in own and not k.endswith(_COUNTER)]
    fitted = fitted_state(state, expected, needed, what)
    placed = {own[name.replace(".", "_")]: value for name, value in fitted.items()}
    unfilled = set(own.values()) - set(placed)
    if not all(name.endswith(_COUNTER) for name in unfilled):
        raise ScreenerError(
            f"timm {timm.__version__} gives the tensors of {architecture} other names where it is "
            "cut: take another architecture"
        )
    network.load_state_dict(placed, strict=False)


def _cut(architecture: str) -> Any:
    """The network that ends in maps of `STRIDES`, without weights."""
    try:
        reductions = list(_features(architecture).feature_info.reduction())
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ScreenerError(f"timm gives no maps of {architecture}: {error}") from error
    if not set(STRIDES) <= set(reductions) or len(set(reductions)) < len(reductions):
        have = ", ".join(str(r) for r in reductions)
        raise ScreenerError(
            f"{architecture} has maps of strides {have}, and one each of 4, 8 and 16 is needed: "
            "take a convolutional network such as resnet18"
        )
    return _features(architecture, [reductions.index(s) for s in STRIDES])


class _LastMap(nn.Module):
    """(n, 3, H, W) -> the last map of a network, in a list."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [self.network.forward_features(pictures)]


@torch.no_grad()
def _size_of(network: nn.Module, architecture: str) -> tuple[int, int]:
    """Channels and stride of the last map, of a small picture."""
    side = 2 * _LARGEST_STRIDE
    try:
        shape = tuple(network(torch.zeros(1, 3, side, side))[0].shape)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ScreenerError(
            f"{architecture} takes pictures of one size alone ({error}): take a convolutional "
            "network such as resnet18"
        ) from error
    stride = side // shape[-1]
    if len(shape) != 4 or shape[2] != shape[3] or stride * shape[3] != side:
        raise ScreenerError(
            f"the last map of {architecture} is {shape}, and one of channels, rows and columns is "
            "needed: take a convolutional network such as resnet18"
        )
    return shape[1], stride


def _features(architecture: str, indices: Sequence[int] | None = None) -> Any:
    import timm

    chosen: dict[str, Any] = {} if indices is None else {"out_indices": tuple(indices)}
    return timm.create_model(architecture, pretrained=False, features_only=True, **chosen)
