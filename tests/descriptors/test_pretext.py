"""Maps of a trained image encoder are those of its network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from screener_nnu.descriptors.backbone import load_backbone
from screener_nnu.descriptors.image_encoder import PictureEncoder, UNetEncoder
from screener_nnu.descriptors.imagenet import SliceFeatures
from screener_nnu.descriptors.levels import LevelsDescriptor
from screener_nnu.descriptors.pretext import PretextDescriptor
from screener_nnu.pretext_settings import PretextSettings
from screener_nnu.scoring.teacher import weights_hash

torch.set_num_threads(1)
ARCHITECTURE = "test_efficientnet"


def of_pictures(weights: Path, maps: str = "levels", most: int = 20) -> PretextDescriptor:
    encoder = PictureEncoder(ARCHITECTURE, str(weights))
    settings = PretextSettings(backbone=ARCHITECTURE, weights=str(weights))
    return PretextDescriptor(encoder, settings, maps, most, seed=4)


def test_levels_of_a_unet_are_the_first_stages_of_its_encoder(
    unet: Callable[..., nn.Module],
) -> None:
    image = torch.rand(1, 1, 4, 16, 16)
    found = PretextDescriptor(UNetEncoder(unet()), PretextSettings(), most_channels=9, seed=2)
    levels = LevelsDescriptor(unet(), ("encoder_0", "encoder_1", "encoder_2"), 9, 2)
    assert found.channels == 9 and found.divisor == levels.divisor
    assert torch.equal(found(image), levels(image))
    assert torch.equal(found.pooled(image, (2, 4, 4)), levels.pooled(image, (2, 4, 4)))


def test_the_head_is_what_was_trained(unet: Callable[..., nn.Module]) -> None:
    """The mean of the map is the encoder's vector, where the cells fill the image."""
    encoder = UNetEncoder(unet())
    found = PretextDescriptor(encoder, PretextSettings(), "head", most_channels=0)
    image = torch.rand(2, 1, 4, 16, 16)
    assert found.channels == encoder.width
    assert torch.allclose(found(image).mean(dim=(2, 3, 4)), encoder(image), atol=1e-6)


@pytest.mark.parametrize("maps", ["levels", "head"])
def test_maps_of_a_network_of_pictures(weights: Path, maps: str) -> None:
    image = torch.rand(1, 3, 1, 64, 96)
    backbone = load_backbone(ARCHITECTURE, weights, maps)
    expected = SliceFeatures(backbone, most_channels=20, seed=4)
    found = of_pictures(weights, maps)
    assert torch.allclose(found(image), expected(image), atol=1e-6)


def test_identity_follows_weights_and_maps(weights: Path, unet: Callable[..., nn.Module]) -> None:
    same = weights_hash(of_pictures(weights))
    assert same == weights_hash(of_pictures(weights))
    assert same != weights_hash(of_pictures(weights, "head"))
    trained = PictureEncoder(ARCHITECTURE, str(weights))
    with torch.no_grad():
        next(trained.network.parameters()).add_(0.1)
    settings = PretextSettings(backbone=ARCHITECTURE, weights=str(weights))
    assert same != weights_hash(PretextDescriptor(trained, settings, "levels", 20, 4))
