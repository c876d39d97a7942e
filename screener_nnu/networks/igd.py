"""The auto-encoders of interpolated Gaussian descriptors, of whole images and of patches.

References:
    Chen et al., Deep one-class classification via interpolated Gaussian descriptor, AAAI 2022
    (https://arxiv.org/abs/2101.10043).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.networks.image_decoder import Critic, Decoder
from screener_nnu.plans import Shape

# A centre at 0 is met by a network that gives nothing.
_LEAST_CENTRE, _LEAST_SPREAD = 0.1, 1e-3


class Decoded(NamedTuple):
    """What an auto-encoder makes of images.

    Attributes:
        z: latent vectors (B, latent), float32.
        images: reconstructions (B, C, D, H, W), float32.
        mixed: images between two others, (B, C, D, H, W); None where none were asked for.
    """

    z: torch.Tensor
    images: torch.Tensor
    mixed: torch.Tensor | None = None


class GaussianAutoEncoder(nn.Module):
    """Auto-encoder of images of one size with a Gaussian around the latent vectors of normal ones.

    Args:
        encoder: of images; a frozen one stays in evaluation mode.
        channels: of the images.
        size: (D, H, W) of the images.
        latent: numbers that an image becomes.
        width: channels of the decoder's first map.
        encoded: size that images are resized to for the encoder, which may need larger ones.
        freeze: whether the encoder stays as it is.

    Attributes:
        centre: (latent,) of the Gaussian.
        spread: s of `normality`.
    """

    centre: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self,
        encoder: nn.Module,
        channels: int,
        size: Shape,
        latent: int = 128,
        width: int = 512,
        encoded: Shape | None = None,
        freeze: bool = True,
    ) -> None:
        """Builds what is not given; random weights come from torch's global state."""
        super().__init__()
        self.encoder, self.size, self.encoded, self.frozen = encoder, size, encoded or size, freeze
        if freeze:
            encoder.requires_grad_(False)
        vectors: Any = encoder.width
        self.latent = nn.Linear(vectors, latent)
        self.decoder = Decoder(latent, channels, size, width)
        self.register_buffer("centre", torch.zeros(latent))
        self.register_buffer("spread", torch.ones(()))

    def train(self, mode: bool = True) -> GaussianAutoEncoder:
        """Training mode for all but a frozen encoder."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latent vectors (B, latent) of images, float32."""
        if tuple(images.shape[2:]) != tuple(self.encoded):
            images = F.interpolate(images, self.encoded, mode="trilinear")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            vectors = self.encoder(images)
        with torch.autocast(images.device.type, enabled=False):
            latents: torch.Tensor = self.latent(vectors.float())
        return latents

    def forward(self, images: torch.Tensor, mix: torch.Tensor | None = None) -> Decoded:
        """Encodes and decodes images, and what lies between two of them.

        Args:
            images: (B, C, *size).
            mix: (B,) share of an image's own latent vector in one between it and the one before it
                in the batch; without it there are none.
        """
        z = self.encode(images)
        if mix is None:
            return Decoded(z, self.decoder(z))
        # Not the batch turned around, as published: an odd one would mix its middle with itself.
        between = torch.lerp(z.roll(1, 0), z, mix[:, None])
        # In one pass, so that normalisation sees the same in training and in its running means.
        decoded, mixed = self.decoder(torch.cat([z, between])).chunk(2)
        return Decoded(z, decoded, mixed)

    def normality(self, z: torch.Tensor) -> torch.Tensor:
        """exp(-|z - centre|^2 / spread), in (0, 1], (B,) of latent vectors (B, latent)."""
        distance = (z - self.centre).square().sum(1)
        return torch.exp(-distance / self.spread)

    @torch.no_grad()
    def place(self, z: torch.Tensor, kappa: float = 1.0) -> None:
        """Puts the Gaussian around latent vectors (N, latent) of normal images.

        The centre is their mean, whose numbers are kept 0.1 away from 0; the spread is kappa times
        the mean squared distance from that centre, 0.001 at least.
        """
        mean = z.mean(0)
        pushed = torch.where(mean < 0, -_LEAST_CENTRE, _LEAST_CENTRE).to(mean)
        self.centre.copy_(torch.where(mean.abs() < _LEAST_CENTRE, pushed, mean))
        distance = (z - self.centre).square().sum(1).mean()
        self.spread.copy_((kappa * distance).clamp_min(_LEAST_SPREAD))


class AutoEncoders(nn.ModuleDict):
    """Auto-encoders by name, which are trained together."""

    def forward(
        self, images: Mapping[str, torch.Tensor], mix: Mapping[str, torch.Tensor]
    ) -> dict[str, Decoded]:
        """What each makes of its images; `mix` by name, see `GaussianAutoEncoder`."""
        return {name: self[name](one, mix.get(name)) for name, one in images.items()}

    def named(self, name: str) -> GaussianAutoEncoder:
        """The one of a name."""
        model: Any = self[name]
        return model  # type: ignore[no-any-return]


class Critics(nn.ModuleDict):
    """Critics by the name of the auto-encoder that they watch."""

    @classmethod
    def of(cls, models: AutoEncoders, channels: int) -> Critics:
        """One of each auto-encoder; random weights come from torch's global state."""
        sizes: dict[str, Any] = {name: model.size for name, model in models.items()}
        return cls({name: Critic(channels, size) for name, size in sizes.items()})

    def forward(self, images: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Guesses (B,) of each."""
        return {name: self[name](one) for name, one in images.items()}
