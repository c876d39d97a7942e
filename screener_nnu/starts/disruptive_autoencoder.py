"""Disruptive auto-encoders: noise, lost detail and lost channels are to be undone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from screener_nnu.plans import Plan, Shape, Spacing
from screener_nnu.setting_values import Count, Fraction, NotNegative
from screener_nnu.starts.base import StartMethod, value_range


@dataclass(frozen=True)
class DisruptiveAutoEncoderSettings:
    """Of a disruptive auto-encoder.

    Attributes:
        noise: standard deviation, where the range of values is 1.
        factor: of the coarser grid in plane, that detail is lost on.
        dropped: share of the channels behind the first stage that are 0.
    """

    noise: NotNegative = 0.32
    factor: Count = 4
    dropped: Fraction = 0.6


class DisruptiveAutoEncoder(StartMethod):
    """Absolute difference of all voxels to the image without noise, in full detail.

    The term that tells modalities apart is left out: a plan has one.

    References:
        Valanarasu et al., Disruptive autoencoders: leveraging low-level features for 3D medical
        image pre-training, MIDL 2024.
    """

    Settings = DisruptiveAutoEncoderSettings
    paper = "Disruptive autoencoders: leveraging low-level features for 3D medical pre-training"
    range: Tensor

    def __init__(self, plan: Plan, size: Shape, noise: float, factor: int, dropped: float) -> None:
        """Builds the network."""
        super().__init__(plan, size, plan.channels)
        self.noise, self.dropped = noise, dropped
        self.coarse = coarser(size, plan.settings.preprocessing.spacing, factor)
        self.register_buffer("range", value_range(plan), persistent=False)

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Absolute difference to what was there before."""
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        spoilt = F.interpolate(
            images + self.noise * self.range * noise, self.coarse, mode="trilinear"
        )
        spoilt = F.interpolate(spoilt, self.size, mode="trilinear")
        width = int(self.network.encoder.output_channels[0])
        kept = kept_channels(len(images), width, self.dropped, generator)
        restored = self._restored(spoilt, kept)
        return {"l1": (restored.float() - images.float()).abs().mean()}

    def _restored(self, images: Tensor, kept: Tensor) -> Tensor:
        """Outputs for images whose first stage loses channels, for the decoder as well."""

        def drop(_: object, __: object, maps: Tensor) -> Tensor:
            # A network of planes has the slices of an image one after the other.
            mask = kept.repeat_interleave(len(maps) // len(kept), dim=0).to(maps.dtype)
            return maps * mask.view(*mask.shape, *[1] * (maps.ndim - 2))

        # For one call: a copy of the network would keep the hook of the original.
        hook = self.network.encoder.stages[0].register_forward_hook(drop)
        try:
            outputs: Tensor = self.network(images)
        finally:
            hook.remove()
        return outputs


def kept_channels(count: int, channels: int, dropped: float, generator: torch.Generator) -> Tensor:
    """Masks (count, channels) of channels that stay, 0 in so large a share of each row."""
    rank = torch.rand(count, channels, generator=generator, device=generator.device)
    return (rank.argsort(1).argsort(1) >= round(dropped * channels)).float()


def coarser(size: Shape, spacing: Spacing, factor: int) -> Shape:
    """Size of an image on a grid that is coarser in plane, and as coarse in mm along z.

    Example:
        >>> coarser((40, 40, 40), (4.0, 4.0, 4.0), 4), coarser((16, 64, 64), (5.0, 1.0, 1.0), 4)
        ((10, 10, 10), (16, 16, 16))
    """
    axial = max(1.0, factor * spacing[1] / spacing[0])
    factors = (axial, factor, factor)
    z, y, x = (max(1, round(n / f)) for n, f in zip(size, factors, strict=True))
    return z, y, x
