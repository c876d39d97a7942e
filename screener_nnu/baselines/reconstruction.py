"""What all methods share that reconstruct an image: the score is how far the result is from it."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from screener_nnu.baselines.base import BaselineMethod


class ReconstructionMethod(BaselineMethod):
    """A method whose score is the absolute difference of an image and its reconstruction.

    Attributes:
        debias: whether the median difference of an image is subtracted first.
    """

    smoothing = 1.0
    advice = (
        "Reconstructions that equal their images, or are all the same, have no use as scores: look "
        "at the losses in the log, and change baseline.optimiser.learning_rate or train with more "
        "baseline.optimiser.steps"
    )
    debias: bool = False

    @abstractmethod
    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstructions (B, C, D, H, W) of images in [-1, 1], in evaluation mode."""

    def score(self, images: Tensor) -> Tensor:
        """Absolute difference (B, D, H, W), mean over channels."""
        difference = images - self.reconstruct(images).float()
        if self.debias:
            difference = difference - median_in_window(difference, images)
        return difference.abs().mean(1)


def median_in_window(values: Tensor, images: Tensor) -> Tensor:
    """Median (B, C, 1, 1, 1) of values where an image is above the lower end of its window.

    A method sees no body mask when it scores; what lies at the lower end is air. An image of
    nothing else has a median of 0.

    Args:
        values: (B, C, D, H, W), float32.
        images: (B, C, D, H, W) in [-1, 1].
    """
    inside = values.masked_fill(images <= -1, torch.nan).flatten(2)
    return inside.nanmedian(2).values.nan_to_num()[..., None, None, None]
