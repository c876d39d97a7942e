"""What holds for every descriptor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.descriptors.base import Descriptor
from screener_nnu.descriptors.file_network import FileDescriptor
from screener_nnu.descriptors.filters import FilterBank
from screener_nnu.descriptors.imagenet import ImageNetSlices
from screener_nnu.descriptors.levels import LevelsDescriptor
from screener_nnu.descriptors.with_filters import DescriptorWithFilters
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import PreprocessingSettings
from screener_nnu.scoring.teacher import weights_hash

torch.set_num_threads(1)


def of_plan(
    spacing: tuple[float, float, float], hu_clip: tuple[float, float] = (-1024.0, 1500.0)
) -> PreprocessingSettings:
    """Of a plan with such images."""
    return PreprocessingSettings(spacing, spacing, hu_clip)


SHAPE = (5, 19, 22)
POOLINGS = [(1, 1, 1), (2, 3, 4), (2, 2, 2)]


class Plain(Descriptor):
    """A descriptor that does not override `pooled`, and would notice training mode."""

    def __init__(self) -> None:
        super().__init__(4, "plain")
        torch.manual_seed(1)
        layers = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Dropout(0.5))
        self.layers = layers.requires_grad_(False).eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image).float()


NAMES = [
    "plain",
    "filters",
    "with filters",
    "levels",
    "axial",
    "planes",
    ".pt",
    ".pt2",
    ".onnx",
    "slices.pt",
    "slices.onnx",
]


@pytest.fixture(params=NAMES)
def build(
    request: pytest.FixtureRequest,
    unet: Callable[[], nn.Module],
    weights: Path,
    network_file: Callable[..., Path],
) -> Callable[[], Descriptor]:
    """Builds a descriptor anew, the same each time."""
    name: str = request.param
    if name in ("axial", "planes"):
        planes = "all" if name == "planes" else "axial"
        return lambda: ImageNetSlices("test_efficientnet", weights, planes, most_channels=20)
    if name == "plain":
        return Plain
    if name == "filters":
        return lambda: FilterBank((0.8, 1.6), (1.2,))
    if name == "with filters":
        return lambda: DescriptorWithFilters(unet(), (0.8, 1.6), (1.2,))
    if name == "levels":
        levels = ("decoder_0", "encoder_2", "output")
        return lambda: LevelsDescriptor(unet(), levels, most_channels=9)
    ending, kind = "." + name.rpartition(".")[2], "slices" if "slices" in name else "encoder"
    path = network_file(ending, kind)
    return lambda: FileDescriptor(path)


def images(descriptor: Descriptor, *shape: int) -> torch.Tensor:
    unit = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(3))
    return unit * 1000 - 500 if descriptor.reads == "hu" else unit


@pytest.mark.parametrize("shape", [SHAPE, (1, 16, 16), (4, 8, 33)])
def test_maps_have_the_size_of_the_image(
    build: Callable[[], Descriptor], shape: tuple[int, int, int]
) -> None:
    descriptor = build()
    maps = descriptor(images(descriptor, *shape))
    assert maps.shape == (2, descriptor.channels, *shape) and maps.dtype == torch.float32
    assert torch.isfinite(maps).all() and (maps.std(dim=(0, 2, 3, 4)) > 0).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooled_is_the_pooled_map(
    build: Callable[[], Descriptor], pooling: tuple[int, int, int]
) -> None:
    descriptor = build()
    image = images(descriptor, *SHAPE)
    expected = F.avg_pool3d(descriptor(image), pooling)
    found = descriptor.pooled(image, pooling)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_nothing_is_trained(build: Callable[[], Descriptor]) -> None:
    descriptor = build()
    parent = nn.Sequential(descriptor)
    image = images(descriptor, *SHAPE)
    before = descriptor(image)
    state = {k: v.clone() for k, v in descriptor.state_dict().items()}
    parent.train()
    image.requires_grad_(False)
    after = descriptor(image)
    assert torch.equal(before, after) and not after.requires_grad
    assert not any(p.requires_grad for p in descriptor.parameters())
    assert not any(m.training for m in descriptor.modules() if hasattr(m, "training"))
    assert all(torch.equal(v, state[k]) for k, v in descriptor.state_dict().items())


def test_float32_comes_out_of_mixed_precision(build: Callable[[], Descriptor]) -> None:
    descriptor = build()
    image = images(descriptor, *SHAPE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps, pooled = descriptor(image), descriptor.pooled(image, (2, 3, 4))
    assert maps.dtype == pooled.dtype == torch.float32
    exact = descriptor(image)
    assert (maps - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_each_image_of_a_batch_is_alone(build: Callable[[], Descriptor]) -> None:
    descriptor = build()
    image = images(descriptor, *SHAPE)
    alone = [descriptor.pooled(one[None], (2, 3, 4)) for one in image]
    batch = descriptor.pooled(image, (2, 3, 4))
    torch.testing.assert_close(batch, torch.cat(alone), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(*alone)


def test_state_is_saved_and_is_the_identity(
    build: Callable[[], Descriptor], tmp_path: Path
) -> None:
    descriptor, other = build(), build()
    assert weights_hash(descriptor) == weights_hash(other)
    torch.save(descriptor.state_dict(), tmp_path / "state.pth")
    image = images(descriptor, *SHAPE)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    torch.testing.assert_close(other(image), descriptor(image))
    assert weights_hash(descriptor) == weights_hash(other)


def test_state_of_another_origin_is_refused(build: Callable[[], Descriptor]) -> None:
    descriptor = build()
    state = {**descriptor.state_dict(), "origin": torch.zeros(32, dtype=torch.uint8)}
    with pytest.raises(RuntimeError, match="other settings or another file"):
        descriptor.load_state_dict(state)


def test_most_descriptors_take_any_spacing(build: Callable[[], Descriptor]) -> None:
    descriptor = build()
    if descriptor.spacing is None:
        descriptor.check_images(of_plan((9.0, 0.1, 3.0)))
    else:
        with pytest.raises(ScreenerError, match="use a plan of that spacing"):
            descriptor.check_images(of_plan((9.0, 0.1, 3.0)))


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        (LevelsDescriptor, {"levels": "output"}, "x.levels must be a list, but is 'output'"),
        (LevelsDescriptor, {"levels": [1]}, "x.levels must be str, but is 1"),
        (LevelsDescriptor, {"most_channels": -1}, "x.most_channels must be at least 0"),
        (LevelsDescriptor, {"seed": 0.5}, "x.seed must be int"),
        (ImageNetSlices, {"planes": "oblique"}, "x.planes must be axial or all, but is oblique"),
        (ImageNetSlices, {"architecture": 18}, "x.architecture must be str"),
        (ImageNetSlices, {"most_channels": -1}, "x.most_channels must be at least 0"),
        (ImageNetSlices, {"slices": 2}, "settings slices, which are unknown here"),
        (FileDescriptor, {}, "lacks the settings network"),
        (FileDescriptor, {"network": 3}, "x.network must be str"),
        (FileDescriptor, {"network": "a.pt", "seed": -2}, "x.seed must be at least 0"),
    ],
)
def test_wrong_settings_are_refused(
    kind: type[Descriptor], values: dict[str, Any], said: str
) -> None:
    with pytest.raises(ScreenerError, match=said):
        kind.options(values, "x")


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (LevelsDescriptor, {"levels": ["output"], "most_channels": 3}),
        (ImageNetSlices, {"planes": "all"}),
        (FileDescriptor, {"network": "a.pt"}),
    ],
)
def test_settings_are_arguments(kind: type[Descriptor], values: dict[str, Any]) -> None:
    import inspect

    options = kind.options(values, "x")
    given = {key: list(v) if isinstance(v, tuple) else v for key, v in options.items()}
    assert given == {**given, **values}
    assert set(options) <= set(inspect.signature(kind).parameters)
