"""Encoders of one vector an image: against their own networks, and the weights that they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from screener_nnu.descriptors.backbone import normalisation
from screener_nnu.descriptors.image_encoder import (
    PictureEncoder,
    UNetEncoder,
    build_image_encoder,
)
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.planes import take_depth
from screener_nnu.pretext_settings import PACKAGE, PACKAGED_ARCHITECTURE

torch.set_num_threads(1)
ARCHITECTURE = "test_efficientnet"


def test_the_vector_is_the_mean_of_the_deepest_map(unet: Callable[..., nn.Module]) -> None:
    network = unet()
    encoder = UNetEncoder(network)
    images = torch.rand(2, 1, 4, 16, 20)
    assert encoder.width == 8
    deepest = network.encoder(images)[-1]  # type: ignore[operator]
    assert torch.allclose(encoder(images), deepest.mean(dim=(2, 3, 4)))


def test_the_vector_of_all_stages(unet: Callable[..., nn.Module]) -> None:
    network = unet()
    encoder = UNetEncoder(network, levels=True)
    images = torch.rand(2, 1, 4, 16, 20)
    stages = network.encoder(images)  # type: ignore[operator]
    expected = [v for m in stages for v in (m.mean(dim=(2, 3, 4)), m.amax(dim=(2, 3, 4)))]
    assert encoder.width == 2 * (4 + 6 + 8)
    assert torch.allclose(encoder(images), torch.cat(expected, 1))


def test_only_the_encoder_of_a_unet_gets_gradients(unet: Callable[..., nn.Module]) -> None:
    network = unet()
    UNetEncoder(network)(torch.rand(2, 1, 4, 16, 16)).sum().backward()
    own = {name for name, p in network.named_parameters() if name.startswith("encoder.")}
    learned = {name for name, p in network.named_parameters() if p.grad is not None}
    # A bias before a normalisation of fixed statistics learns, too.
    assert learned == own
    assert {n for n, p in network.named_parameters() if p.requires_grad} == own


def test_planes_are_pooled_with_their_slices() -> None:
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    torch.manual_seed(0)
    network = PlainConvUNet(
        1, 2, [3, 5], nn.Conv2d, 3, [[1, 1], [2, 2]], 1, 2, 1, True,
        norm_op=nn.InstanceNorm2d, nonlin=nn.ReLU,
    )  # fmt: skip
    encoder = UNetEncoder(take_depth(network))
    image = torch.rand(2, 1, 1, 16, 12)
    expected = network.encoder(image[:, :, 0])[-1].mean(dim=(2, 3))
    assert torch.allclose(encoder(image), expected)
    both = torch.cat([image, image.flip(-1)], dim=2)
    expected = (expected + network.encoder(image[:, :, 0].flip(-1))[-1].mean(dim=(2, 3))) / 2
    assert torch.allclose(encoder(both), expected, atol=1e-6)


def test_pictures_go_through_timm_as_it_wants_them(weights: Path) -> None:
    encoder = PictureEncoder(ARCHITECTURE, str(weights)).eval()
    whole = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=0).eval()
    whole.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    mean, std = normalisation(ARCHITECTURE, str(weights))
    grey = torch.rand(2, 1, 1, 64, 64)
    rgb = (grey[:, :, 0].repeat(1, 3, 1, 1) - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(
        std
    ).view(3, 1, 1)
    assert torch.allclose(encoder(grey), whole.forward_features(rgb).mean(dim=(2, 3)), atol=1e-6)
    colour = torch.rand(1, 3, 1, 64, 64)
    assert not torch.allclose(encoder(colour), encoder(colour.flip(1)))
    assert encoder.width == encoder(grey).shape[1]


def test_random_weights_follow_the_seed_and_leave_the_global_state(world: Any) -> None:
    plan = world.plan()
    first, second, other = (build_image_encoder(plan, seed) for seed in (1, 1, 2))
    weight = "encoder.stages.0.0.convs.0.conv.weight"
    states = [e.network.state_dict()[weight] for e in (first, second, other)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    "settings, message",
    [
        (("pretext.weights=package",), "weights are those of a network of pictures"),
        (("pretext.backbone=resnet18",), "is a network of pictures, and the plan .* of volumes"),
    ],
)
def test_a_plan_of_volumes_has_its_own_encoder(
    world: Any, settings: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ScreenerError, match=message):
        build_image_encoder(world.plan(*settings), 0)


def test_weights_of_another_architecture_are_refused(weights: Path) -> None:
    with pytest.raises(ScreenerError, match="do not fit"):
        PictureEncoder("resnet18", str(weights))
    with pytest.raises(ScreenerError, match="no weights for resnet18"):
        PictureEncoder("resnet18", PACKAGE)
    with pytest.raises(ScreenerError, match="timm has no architecture 'resnet81'"):
        PictureEncoder("resnet81", "")


def test_normalisation_belongs_to_the_weights() -> None:
    mean, std = normalisation(PACKAGED_ARCHITECTURE, PACKAGE)
    assert mean == (127 / 255,) * 3 and std == (128 / 255,) * 3
    assert normalisation("resnet18", "")[0] == (0.485, 0.456, 0.406)
