"""Maps of an image encoder that was trained on the plan's images, see `trainers.pmsacl`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch

from screener_nnu.descriptors.backbone import HEAD, LEVELS, backbone_of
from screener_nnu.descriptors.base import Descriptor
from screener_nnu.descriptors.image_encoder import ImageEncoder, UNetEncoder
from screener_nnu.descriptors.imagenet import SliceFeatures
from screener_nnu.descriptors.levels import LevelsDescriptor, LevelsSettings, level_names
from screener_nnu.plans import Shape
from screener_nnu.pretext_settings import PretextSettings
from screener_nnu.setting_values import CountOrNone, OneOf


@dataclass(frozen=True)
class PretextMapsSettings:
    """Which maps of the encoder, and how many of their channels.

    Attributes:
        maps: `levels`, the first three stages of a UNet's encoder, of a network of pictures those
            of strides 4, 8 and 16; or `head`, the deepest map, whose mean was trained.
        most_channels: size of the random subset of all channels; 0 keeps them all. PaDiM: 100.
        seed: of the subset.
    """

    maps: Annotated[str, OneOf(LEVELS, HEAD)] = LEVELS
    most_channels: CountOrNone = 100
    seed: CountOrNone = 0


class PretextDescriptor(Descriptor):
    """Levels of an encoder that image-level pre-training trained, as PMSACL's detectors read them.

    References:
        Tian et al., "Self-supervised Pseudo Multi-class Pre-training for Unsupervised Anomaly
        Detection and Segmentation in Medical Images", https://arxiv.org/abs/2109.01303.

    Args:
        encoder: trained; it is frozen, not copied.
        pretext: settings that it was built with.
        maps, most_channels, seed: see `PretextMapsSettings`.
    """

    Settings = PretextMapsSettings

    def __init__(
        self,
        encoder: ImageEncoder,
        pretext: PretextSettings,
        maps: str = LEVELS,
        most_channels: int = 100,
        seed: int = 0,
    ) -> None:
        """Finds the maps and draws the channels."""
        inner: Descriptor
        if isinstance(encoder, UNetEncoder):
            deepest = [n for n in level_names(encoder.network) if n.startswith("encoder")][-1:]
            levels = deepest if maps == HEAD else LevelsSettings.levels
            inner = LevelsDescriptor(encoder.network, levels, most_channels, seed)
        else:
            backbone = backbone_of(
                pretext.backbone,
                encoder.network.state_dict(),
                pretext.weights,
                maps,
                b"",
                f"the trained encoder and {pretext.backbone}",
            )
            inner = SliceFeatures(backbone, most_channels=most_channels, seed=seed, origin=(maps,))
        super().__init__(inner.channels, pretext.backbone, maps)
        self.inner = inner
        self.divisor = inner.divisor

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The map (B, channels, D, H, W) of equalised images (B, C, D, H, W)."""
        maps: torch.Tensor = self.inner(image)
        return maps

    @torch.no_grad()
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """See `Descriptor.pooled`."""
        return self.inner.pooled(image, pooling)
