"""Levels of a UNet against its own stages, run by hand."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.descriptors.levels import LevelsDescriptor, LevelsSettings, level_names
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.planes import take_depth

torch.set_num_threads(1)
NAMES = ("encoder_0", "encoder_1", "encoder_2", "decoder_0", "decoder_1", "output")
STRIDES = {
    "encoder_0": (1, 1, 1),
    "encoder_1": (1, 2, 2),
    "encoder_2": (2, 4, 4),
    "decoder_0": (1, 1, 1),
    "decoder_1": (1, 2, 2),
    "output": (1, 1, 1),
}
WIDTHS = {"encoder_0": 4, "encoder_1": 6, "encoder_2": 8, "decoder_0": 4, "decoder_1": 6}
Build = Callable[..., nn.Module]


def images(*shape: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 1, *shape, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def stages(network: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every stage, called one after the other."""
    found = {}
    x = image
    for k, stage in enumerate(network.encoder.stages):  # type: ignore[union-attr, arg-type]
        x = found[f"encoder_{k}"] = stage(x)
    decoder = network.decoder
    for j, (up, stage) in enumerate(zip(decoder.transpconvs, decoder.stages, strict=True)):  # type: ignore[union-attr, arg-type, call-overload]
        k = 1 - j
        x = found[f"decoder_{k}"] = stage(torch.cat((up(x), found[f"encoder_{k}"]), dim=1))
    found["output"] = decoder.seg_layers[-1](x)  # type: ignore[union-attr, index]
    return found


def spread(maps: torch.Tensor, stride: tuple[int, int, int]) -> torch.Tensor:
    for axis, n in enumerate(stride, start=2):
        maps = maps.repeat_interleave(n, dim=axis)
    return maps


def test_names_are_those_of_the_stages(unet: Build) -> None:
    assert level_names(unet()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_level_is_the_stage_of_that_name(unet: Build, name: str) -> None:
    network, image = unet().eval(), images(4, 8, 12)
    expected = spread(stages(network, image)[name], STRIDES[name])
    descriptor = LevelsDescriptor(network, [name])
    assert descriptor.channels == expected.shape[1] == WIDTHS.get(name, 5)
    torch.testing.assert_close(descriptor(image), expected)


def test_output_is_the_network_and_decoder_0_what_its_last_layer_sees(unet: Build) -> None:
    network, image = unet().eval(), images(4, 8, 12)
    with torch.no_grad():
        expected = network(image)
    assert torch.equal(LevelsDescriptor(network, ["output"])(image), expected)
    last = network.decoder.seg_layers[-1]  # type: ignore[union-attr, index]
    before = LevelsDescriptor(network, ["decoder_0"])(image)
    torch.testing.assert_close(F.conv3d(before, last.weight, last.bias), expected)


def test_output_of_a_network_with_deep_supervision_is_the_finest(unet: Build) -> None:
    image = images(4, 8, 12)
    found = LevelsDescriptor(unet(deep_supervision=True), ["output", "decoder_1"])(image)
    torch.testing.assert_close(found, LevelsDescriptor(unet(), ["output", "decoder_1"])(image))


def test_levels_are_in_the_order_of_their_names(unet: Build) -> None:
    network, image = unet().eval(), images(4, 8, 12)
    order = ("decoder_1", "encoder_2", "output", "encoder_0")
    found = LevelsDescriptor(network, order).pooled(image, (2, 3, 3))
    alone = [LevelsDescriptor(network, [n]).pooled(image, (2, 3, 3)) for n in order]
    torch.testing.assert_close(found, torch.cat(alone, dim=1))


def test_a_subset_of_channels_is_that_of_the_whole_map(unet: Build) -> None:
    network, image = unet().eval(), images(4, 8, 12)
    whole = LevelsDescriptor(network, NAMES)
    few = LevelsDescriptor(network, NAMES, most_channels=9, seed=3)
    assert few.channels == len(few.kept) == 9 and whole.channels == 33
    torch.testing.assert_close(few(image), whole(image)[:, few.kept])
    # Levels without a kept channel are no obstacle.
    one = LevelsDescriptor(network, NAMES, most_channels=1)
    torch.testing.assert_close(
        one.pooled(image, (1, 2, 2)), whole.pooled(image, (1, 2, 2))[:, one.kept]
    )


def test_a_tile_agrees_with_the_whole_away_from_its_border(unet: Build) -> None:
    descriptor = LevelsDescriptor(unet(), NAMES)
    assert descriptor.divisor == (2, 4, 4)
    image = images(24, 56, 64, batch=1)
    start, size, margin = (4, 8, 12), (16, 40, 44), (6, 16, 16)
    window = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    inner = tuple(slice(m, n - m) for m, n in zip(margin, size, strict=True))
    tile = descriptor(image[(..., *window)])
    whole = descriptor(image)[(..., *window)]
    torch.testing.assert_close(tile[(..., *inner)], whole[(..., *inner)])
    assert tile[(..., *inner)].numel() > 0 and not torch.allclose(tile, whole)


def test_the_network_is_shared_and_keeps_no_hooks(unet: Build) -> None:
    network, image = unet().train(), images(4, 8, 12)
    descriptor = LevelsDescriptor(network, NAMES)
    assert descriptor.network is network
    assert not any(p.requires_grad for p in network.parameters())
    descriptor(image)
    assert not any(m._forward_hooks for m in network.modules())
    other = copy.deepcopy(descriptor)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.zero_()
    assert descriptor(image).abs().sum() > other(image).abs().sum() == 0


def test_the_decoder_does_not_run_for_levels_of_the_encoder(unet: Build) -> None:
    network = unet()
    network.decoder = Broken(network.decoder)  # type: ignore[arg-type]
    assert LevelsDescriptor(network, ["encoder_2", "encoder_0"])(images(4, 8, 8)).shape[1] == 12
    with pytest.raises(RuntimeError, match="decoder"):
        LevelsDescriptor(network, ["decoder_1"])(images(4, 8, 8))


class Broken(nn.Module):
    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.stages, self.seg_layers = decoder.stages, decoder.seg_layers

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        raise RuntimeError("the decoder runs")


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ((), "encoder_0, .*output, each once, but are none"),
        (("encoder_3",), "each once, but are encoder_3"),
        (("output", "output"), "each once, but are output, output"),
    ],
)
def test_wrong_levels_are_refused(unet: Build, levels: tuple[str, ...], said: str) -> None:
    with pytest.raises(ScreenerError, match=said):
        LevelsDescriptor(unet(), levels)


def test_a_network_without_stages_is_refused() -> None:
    with pytest.raises(ScreenerError, match="Conv3d has no levels to choose from"):
        LevelsDescriptor(nn.Conv3d(1, 2, 1), ["encoder_0"])


def test_default_levels_are_those_of_the_encoder(unet: Build) -> None:
    settings = LevelsDescriptor.options({}, "descriptor.options")
    assert LevelsSettings(**settings) == LevelsSettings()
    assert LevelsDescriptor(unet(), **settings).channels == 18


def test_the_plans_own_unet_has_levels(made_world: object) -> None:
    from screener_nnu.networks.unet import build_unet

    plan = made_world.plan()  # type: ignore[attr-defined]
    network = build_unet(plan, 1, 3, seed=1).eval()
    image = images(12, 16, 16)
    descriptor = LevelsDescriptor(network, level_names(network))
    assert descriptor.divisor == plan.divisor
    with torch.no_grad():
        torch.testing.assert_close(descriptor(image)[:, -3:], network(image))


@pytest.fixture(scope="module")
def planes() -> nn.Module:
    """A network of planes, as pictures have it."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    network = PlainConvUNet(
        input_channels=3,
        n_stages=3,
        features_per_stage=[4, 6, 8],
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=[[1, 1], [2, 2], [2, 1]],
        n_conv_per_stage=1,
        num_classes=5,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
    )
    return take_depth(network).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_levels_of_a_network_of_planes(planes: nn.Module, name: str) -> None:
    strides = {"encoder_1": (1, 2, 2), "encoder_2": (1, 4, 2), "decoder_1": (1, 2, 2)}
    image = torch.rand(2, 3, 2, 8, 12, generator=torch.Generator().manual_seed(2))
    each = [stages(planes, image[:, :, z])[name] for z in range(2)]
    expected = spread(torch.stack(each, dim=2), strides.get(name, (1, 1, 1)))
    descriptor = LevelsDescriptor(planes, [name])
    assert descriptor.divisor == (1, 4, 2)
    torch.testing.assert_close(descriptor(image), expected)
    pooled = descriptor.pooled(image, (1, 4, 4))
    torch.testing.assert_close(pooled, F.avg_pool3d(expected, (1, 4, 4)))
