"""Small networks, and files that hold them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

ARCHITECTURE = "test_efficientnet"


def random_state(network: nn.Module, seed: int) -> None:
    """Gives every tensor a value of its own, statistics of normalisation included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.is_floating_point():
                scale = 0.3 if tensor.ndim < 2 else (2 / tensor[0].numel()) ** 0.5
                noise = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(scale * noise + (tensor.ndim < 2) * 0.5)


@pytest.fixture(scope="session")
def unet() -> Callable[..., nn.Module]:
    """Builds nnU-Net's UNet with strides of its own along z.

    Its normalisation has fixed statistics, so that a voxel depends on its surroundings alone.
    """
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    def build(deep_supervision: bool = False, norm: Any = nn.BatchNorm3d) -> nn.Module:
        network = PlainConvUNet(
            input_channels=1,
            n_stages=3,
            features_per_stage=[4, 6, 8],
            conv_op=nn.Conv3d,
            kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
            strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
            n_conv_per_stage=1,
            num_classes=5,
            n_conv_per_stage_decoder=1,
            conv_bias=True,
            norm_op=norm,
            norm_op_kwargs={"affine": True},
            nonlin=nn.LeakyReLU,
            deep_supervision=deep_supervision,
        )
        random_state(network, 3)
        return network

    return build


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File with weights of timm's smallest EfficientNet."""
    import timm

    network = timm.create_model(ARCHITECTURE, pretrained=False)
    random_state(network, 5)
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(network.state_dict(), path)
    return path


class Encoder(nn.Module):
    """Strides (1, 2, 2) and three channels; its output depends on where along an axis one is."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(1, 4, 3, stride=(1, 2, 2), padding=1)
        self.norm = nn.BatchNorm3d(4)
        self.last = nn.Conv3d(4, 3, 1)
        random_state(self, 9)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(image))))


class SliceEncoder(nn.Module):
    """Slices of three colours, strides (2, 4), five channels."""

    def __init__(self, colours: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(colours, 5, 5, stride=(2, 4), padding=2)
        random_state(self, 11)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.layer(image))


CARD: dict[str, Any] = {
    "spacing": [3.0, 2.0, 2.0],
    "reads": "equalised",
    "channels": 3,
    "strides": [1, 2, 2],
    "layout": "3d",
    "divisor": [1, 2, 4],
}
SLICE_CARD: dict[str, Any] = {
    "spacing": [0.0, 1.5, 1.5],
    "reads": "hu",
    "window": [-200.0, 300.0],
    "normalisation": "minus_one_one",
    "channels": 5,
    "strides": [1, 2, 4],
    "layout": "2d",
    "input_channels": 3,
}


def write_network(path: Path, network: nn.Module, card: dict[str, Any], kind: torch.dtype) -> None:
    """A network in the format of the ending."""
    network = network.to(kind)
    solid = card["layout"] == "3d"
    shape = (2, 1, 4, 6, 8) if solid else (2, card["input_channels"], 8, 12)
    example = torch.rand(shape).to(kind)
    if path.suffix == ".pt":
        torch.jit.save(torch.jit.trace(network, example), path)
        return
    dims: dict[int, Any] = {0: torch.export.Dim("n")}
    strides = card["strides"] if solid else card["strides"][1:]
    for axis, (name, stride) in enumerate(zip("abc", strides, strict=False), start=2):
        dim = torch.export.Dim(name)
        dims[axis] = dim if stride == 1 else stride * dim
    program = torch.export.export(network, (example,), dynamic_shapes=(dims,))
    if path.suffix == ".pt2":
        torch.export.save(program, path)
        return
    exported = torch.onnx.export(program, dynamo=True, external_data=False, verbose=False)
    assert exported is not None
    path.write_bytes(exported.model_proto.SerializeToString())


@pytest.fixture(scope="session")
def network_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a network with its JSON: `encoder` or `slices`, in the format of an ending."""

    made: dict[tuple[str, str, str], tuple[bytes, dict[str, Any]]] = {}

    def write(
        ending: str, kind: str = "encoder", precision: str = "float32", **changes: Any
    ) -> Path:
        if ending == ".onnx":
            for package in ("onnx", "onnxruntime", "onnxscript"):
                pytest.importorskip(package)
        path = tmp_path_factory.mktemp("network") / f"{kind}{ending}"
        if (ending, kind, precision) not in made:
            network, card = (Encoder(), CARD) if kind == "encoder" else (SliceEncoder(), SLICE_CARD)
            write_network(path, network, card, getattr(torch, precision))
            made[ending, kind, precision] = path.read_bytes(), {**card, "dtype": precision}
        content, values = made[ending, kind, precision]
        path.write_bytes(content)
        path.with_suffix(".json").write_text(json.dumps({**values, **changes}))
        return path

    return write


@pytest.fixture(scope="session")
def encoder() -> Callable[[], nn.Module]:
    """The network of `encoder` files."""
    return Encoder


@pytest.fixture(scope="session")
def slice_encoder() -> Callable[[], nn.Module]:
    """The network of `slices` files."""
    return SliceEncoder
