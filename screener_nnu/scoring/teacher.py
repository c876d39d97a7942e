"""The teacher: descriptor, condition and density as one module."""

from __future__ import annotations

import hashlib

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.conditions.base import Condition
from screener_nnu.densities.standardised import StandardisedDensity
from screener_nnu.networks.unet import low_precision
from screener_nnu.plans import Shape


class FeatureExtractor(nn.Module):
    """Frozen descriptor and condition, pooled to the density grid.

    Args:
        descriptor: UNet (B, 1, D, H, W) -> (B, d, D, H, W).
        condition: see `Condition`.
        pooling: kernel and stride of the average pooling (paper: 3 x 3 x 2).
        low_precision_cpu: see `low_precision`.
    """

    def __init__(
        self,
        descriptor: nn.Module,
        condition: Condition,
        pooling: Shape,
        low_precision_cpu: bool = False,
    ) -> None:
        """Freezes what it is given."""
        super().__init__()
        self.descriptor = descriptor
        self.condition = condition
        self.pooling = pooling
        self.low_precision_cpu = low_precision_cpu
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FeatureExtractor:
        """Stays in evaluation mode."""
        return super().train(False)

    def identity(self) -> str:
        """Hash of the weights: a density belongs to exactly these networks."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @torch.no_grad()
    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pooled maps y (B, d, ...) and c (B, d_cond, ...), float32; see `Condition.forward`."""
        with low_precision(image.device, self.low_precision_cpu):
            y = self.descriptor(image)
            c = self.condition(image, start, extent)
        y = F.avg_pool3d(y.float(), self.pooling)
        return y, None if c is None else F.avg_pool3d(c.float(), self.pooling)


class Teacher(nn.Module):
    """Anomaly score -log q(y | c) in nats on the density grid.

    Attributes:
        cell: voxels per axis that one score stands for.
    """

    def __init__(self, features: FeatureExtractor, density: StandardisedDensity) -> None:
        """Joins the three stages."""
        super().__init__()
        self.features = features
        self.density = density
        self.cell = features.pooling

    @torch.no_grad()
    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Scores (B, d, h, w) of images (B, 1, D, H, W), with d = D / cell and so on."""
        y, c = self.features(image, start, extent)
        return -self.density.log_prob(y, c)
