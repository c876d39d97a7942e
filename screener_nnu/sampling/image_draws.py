"""Random numbers of images, one or more an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from screener_nnu.plans import Range
from screener_nnu.sampling.colours import between


@dataclass(frozen=True)
class ImageDraws:
    """Draws of B images from one generator.

    Attributes:
        count: B.
        generator: on the device of the images.
    """

    count: int
    generator: torch.Generator

    def uniform(self, *shape: int) -> torch.Tensor:
        """Numbers (B, *shape) in [0, 1)."""
        device = self.generator.device
        return torch.rand(self.count, *shape, generator=self.generator, device=device)

    def within(self, bounds: Range) -> torch.Tensor:
        """One number an image between two bounds, (B, 1, 1, 1, 1)."""
        return between(self.uniform(1, 1, 1, 1), bounds)

    def happens(self, probability: float) -> torch.Tensor:
        """Whether something happens to an image, (B, 1, 1, 1, 1) bool."""
        return self.uniform(1, 1, 1, 1) < probability

    def gated(self, bounds: Range, probability: float, neutral: float) -> torch.Tensor:
        """`within` with a probability, and a neutral number otherwise."""
        return self.within(bounds).where(self.happens(probability), neutral)
