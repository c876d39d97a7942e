"""DRAEM: a network takes anomalies out again, and another one tells what it took out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from screener_nnu.baselines import OPTIONS
from screener_nnu.baselines.bottleneck import BottleneckNetwork
from screener_nnu.baselines.painted import PaintedMethod
from screener_nnu.crop_methods import body_mean
from screener_nnu.errors import ScreenerError
from screener_nnu.losses.ms_ssim import ms_ssim_map
from screener_nnu.losses.segmentation import focal_loss
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import Plan, Range, Shape
from screener_nnu.setting_values import Count, Fraction, NotNegative, Odd, Rising
from screener_nnu.synthetic.painter import Painter, Painting
from screener_nnu.synthetic.painter_contents import Contents

# Textures are another image, a far part of the same, or noise, alike likely.
_CONTENTS = Contents(
    noise_only=1 / 3,
    own=1 / 2,
    probability=0.5,
    turn=math.pi,
    gain=(0.8, 1.2),
    offset=(-0.2, 0.2),
    gamma=(0.5, 2.0),
    invert=0.2,
)
# Edges are sharp, or soft over one or two voxels.
_KERNELS = (1, 3, 5)
# Width of the reconstructing network as a multiple of the plan's; the range of values.
_FACTOR, _RANGE = 2, 2.0
# Part of the range by which a voxel must change to be an anomaly.
_CHANGED = 0.02


@dataclass(frozen=True)
class DraemSettings:
    """Of DRAEM.

    Attributes:
        probability: that an image gets an anomaly.
        alpha: smallest and largest part of the texture in an anomaly.
        latent: channels of the narrowest place of the reconstructing network.
        window: edge of the window of structural similarity.
        gamma: of the focal loss.
    """

    probability: Fraction = 0.5
    alpha: Annotated[tuple[Fraction, Fraction], Rising()] = (0.2, 1.0)
    latent: Count = 16
    window: Annotated[Count, Odd()] = 5
    gamma: NotNegative = 2.0


class DraemMethod(PaintedMethod):
    """Reconstructs the clean image, then segments from image and reconstruction.

    References:
        Zavrtanik, Kristan and Skocaj, DRAEM: a discriminatively trained reconstruction embedding
        for surface anomaly detection, ICCV 2021.
    """

    Settings = DraemSettings

    def __init__(
        self,
        plan: Plan,
        size: Shape,
        probability: float,
        alpha: Range,
        latent: int,
        window: int,
        gamma: float,
    ) -> None:
        """Builds both networks and the painter.

        Raises:
            ScreenerError: the window is larger than an image.
        """
        super().__init__(plan, size)
        shortest = min(n for n in size if n > 1)
        if window > shortest:
            raise ScreenerError(
                f"{OPTIONS}.window {window} is larger than images of {list(size)} voxels: set it "
                f"to at most {shortest}"
            )
        self.reconstructor = BottleneckNetwork(plan, size, latent, _FACTOR)
        self.segmenter = build_unet(plan, 2 * plan.channels, 1)
        self.window, self.gamma = window, gamma
        self.painter = Painter(
            self.spacing, ("perlin",), _CONTENTS, probability, alpha, kernels=_KERNELS
        )

    def paint(self, images: Tensor, bodies: Tensor, generator: torch.Generator) -> Painting:
        """Textures in the shape of Perlin noise."""
        return self.painter.paint(images, bodies, generator)

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Difference and dissimilarity of reconstruction and clean image, and the focal loss."""
        painted = self.paint(images, bodies, generator).images
        reconstructed, logits = self._networks(painted)
        changed = (painted - images).abs().amax(1, keepdim=True) > _CHANGED * _RANGE
        # Of values in [0, 1]: with a mean near 0 the term of luminance means nothing.
        pair = (reconstructed.float() + 1) / 2, (images.float() + 1) / 2
        alike = ms_ssim_map(*pair, self.window, (1.0,))[:, None]
        return {
            "l2": body_mean((reconstructed.float() - images).square(), bodies),
            "ssim": 1 - body_mean(alike, bodies),
            "focal": focal_loss(logits, changed, bodies, self.gamma),
        }

    def score(self, images: Tensor) -> Tensor:
        """Logits; probabilities near 1 would be alike."""
        return self._networks(images)[1][:, 0]

    def _networks(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstructions (B, C, D, H, W), and logits (B, 1, D, H, W)."""
        reconstructed: Tensor = self.reconstructor(images)
        logits: Tensor = self.segmenter(torch.cat([reconstructed, images.to(reconstructed)], 1))
        return reconstructed, logits
