"""Networks that give one vector of an image: what image-level pre-training trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from screener_nnu.descriptors.backbone import normalisation, trainable_network
from screener_nnu.errors import ScreenerError
from screener_nnu.networks.planes import encoder_maps
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import PICTURES, Plan
from screener_nnu.pretext_settings import ALL_STAGES, UNET


class ImageEncoder(nn.Module):
    """An image (B, C, D, H, W) in [0, 1] to a vector (B, width), by default the deepest map's mean.

    Attributes:
        width: of the vector.
        network: the UNet, or the network of pictures without its layer of classes; its state
            dictionary is what a checkpoint holds.
    """

    width: int
    network: nn.Module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The vectors, float32."""
        maps: torch.Tensor = self.deepest_map(images)
        return maps.float().flatten(2).mean(2)

    def deepest_map(self, images: torch.Tensor) -> torch.Tensor:
        """The deepest map of a batch, (B, width, ...)."""
        raise NotImplementedError


class UNetEncoder(ImageEncoder):
    """The encoder of a UNet of nnU-Net; the decoder goes along untouched, and gets no gradient.

    Instance normalisation takes the mean out of every map, so that the mean behind it says little
    of an image, and nothing of how often something is seen. So the vector has mean and maximum of
    the maps of all stages, where `levels` asks for it.

    Args:
        network: (B, C, D, H, W) -> (B, d, D, H, W), see `build_unet`.
        levels: mean and maximum of all stages in place of the mean of the deepest one.
    """

    def __init__(self, network: nn.Module, levels: bool = False) -> None:
        """Freezes the decoder."""
        super().__init__()
        self.network = network
        self.levels = levels
        encoder: Any = network.encoder
        decoder: Any = network.decoder
        widths = [int(n) for n in encoder.output_channels]
        self.width = 2 * sum(widths) if levels else widths[-1]
        decoder.requires_grad_(False)
        # nnU-Net registers the encoder as a part of its decoder, too.
        encoder.requires_grad_(True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The vectors, float32."""
        if not self.levels:
            return super().forward(images)
        return pooled_maps(encoder_maps(self.network, images))

    def deepest_map(self, images: torch.Tensor) -> torch.Tensor:
        """The map of the last stage; of planes those of all slices side by side."""
        return encoder_maps(self.network, images)[-1]


def pooled_maps(stages: Sequence[torch.Tensor]) -> torch.Tensor:
    """Vectors (B, 2 widths) float32: mean and maximum of the maps of each stage."""
    flat = [maps.float().flatten(2) for maps in stages]
    return torch.cat([v for maps in flat for v in (maps.mean(2), maps.amax(2))], dim=1)


class PictureEncoder(ImageEncoder):
    """A network of timm on pictures of one slice; grey ones are repeated as three colours.

    Args:
        architecture: name in timm.
        weights: see `trainable_network`.
        empty: the weights will be filled in; those that are named say how pictures are normalised.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, architecture: str, weights: str, empty: bool = False) -> None:
        """Builds the network; random weights come from torch's global state."""
        super().__init__()
        # About twice as fast on processors, and what tensor cores want.
        self.network = trainable_network(architecture, "" if empty else weights).to(
            memory_format=torch.channels_last
        )
        mean, std = normalisation(architecture, weights)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        features: Any = self.network.num_features
        self.width = int(features)

    def deepest_map(self, images: torch.Tensor) -> torch.Tensor:
        """The map of the last convolution."""
        network: Any = self.network
        pictures = (images[:, :, 0].expand(-1, 3, -1, -1) - self.mean) / self.std
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        maps: torch.Tensor = network.forward_features(pictures)
        return maps


def build_image_encoder(plan: Plan, seed: int, empty: bool = False) -> ImageEncoder:
    """The network that a plan's `pretext` settings name, with its first weights.

    Args:
        plan: see above.
        seed: of random weights.
        empty: the weights will be filled in, so that no file of them is read.

    Raises:
        ScreenerError: a network of pictures for a plan of volumes, or see `trainable_network`.
    """
    settings = plan.settings.pretext
    if settings.backbone == UNET:
        if settings.weights:
            raise ScreenerError(
                "pretext.weights are those of a network of pictures: name it in pretext.backbone, "
                "or leave them empty for the encoder of the plan's UNet"
            )
        network = build_unet(plan, plan.channels, plan.settings.descriptor.channels, seed)
        return UNetEncoder(network, settings.pooled == ALL_STAGES)
    if plan.configuration_name != PICTURES:
        raise ScreenerError(
            f"pretext.backbone '{settings.backbone}' is a network of pictures, and the plan "
            f"{plan.name} is of volumes: set pretext.backbone={UNET}, the encoder of its UNet"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PictureEncoder(settings.backbone, settings.weights, empty)
