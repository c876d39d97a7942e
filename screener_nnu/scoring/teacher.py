"""The teacher: descriptor, condition and density as one module."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.conditions.base import Condition
from screener_nnu.densities.standardised import StandardisedDensity
from screener_nnu.descriptors.base import EQUALISED, Descriptor, ImageKind
from screener_nnu.networks.unet import low_precision
from screener_nnu.plans import Shape

_SLAB_POSITIONS = 1 << 17


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

    @property
    def descriptor_channels(self) -> int:
        """Channels of y."""
        if isinstance(self.descriptor, Descriptor):
            return self.descriptor.channels
        network: Any = self.descriptor
        return int(network.decoder.seg_layers[-1].out_channels)

    @property
    def reads(self) -> ImageKind:
        """Which image the descriptor sees; the condition sees the equalised one."""
        return self.descriptor.reads if isinstance(self.descriptor, Descriptor) else EQUALISED

    def divisor(self, of_plan: Shape) -> Shape:
        """What starts of tiles are multiples of, so that tiles meet the cells of all networks.

        Args:
            of_plan: strides of the plan's UNet.
        """
        if not isinstance(self.descriptor, Descriptor):
            return of_plan
        z, y, x = np.lcm(of_plan, self.descriptor.divisor).tolist()
        return z, y, x

    def identity(self) -> str:
        """Hash of the weights: a density belongs to exactly these networks."""
        return weights_hash(self)

    @torch.no_grad()
    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pooled maps y (B, d, ...) and c (B, d_cond, ...), float32; see `Condition.forward`."""
        y = self.descriptor_maps(image, start, extent)
        return y, self.condition_maps(image, start, extent) if self.condition.channels else None

    @torch.no_grad()
    def descriptor_maps(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Pooled y (B, d, ...) alone; the place is not used."""
        with low_precision(image.device, self.low_precision_cpu):
            if isinstance(self.descriptor, Descriptor):
                return self.descriptor.pooled(image, self.pooling).float()
            y = self.descriptor(image)
        return F.avg_pool3d(y.float(), self.pooling)

    @torch.no_grad()
    def condition_maps(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Pooled c (B, d_cond, ...) alone, of a condition that has channels."""
        with low_precision(image.device, self.low_precision_cpu):
            c = self.condition(image, start, extent)
        assert c is not None
        return F.avg_pool3d(c.float(), self.pooling)


def mean_descriptor(y: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Mean (channels,) of a descriptor map (1, channels, d, h, w) over positions (d, h, w)."""
    return y[0][:, inside].mean(dim=1)


def weights_hash(module: nn.Module) -> str:
    """Hash of all weights and their names, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class Teacher(nn.Module):
    """Anomaly score -log q(y | c) in nats on the density grid.

    Attributes:
        cell: voxels per axis that one score stands for.
        low_precision_cpu: see `low_precision`.
    """

    by_position = True

    def __init__(self, features: FeatureExtractor, density: StandardisedDensity) -> None:
        """Joins the three stages."""
        super().__init__()
        self.features = features
        self.density = density
        self.cell = features.pooling
        self.low_precision_cpu = features.low_precision_cpu

    @property
    def reads(self) -> ImageKind:
        """Which image the descriptor sees."""
        return self.features.reads

    @torch.no_grad()
    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Scores (B, d, h, w) of images (B, 1, D, H, W), with d = D / cell and so on."""
        return self.score(*self.features(image, start, extent))

    @torch.no_grad()
    def vector_scores(self, y: torch.Tensor, inside: torch.Tensor) -> dict[str, float]:
        """Scores of a scan by the mean of its descriptors, of a density that has such scores.

        Args:
            y: descriptor map (1, channels, d, h, w).
            inside: bool (d, h, w), positions in the body; without one there is no score.
        """
        if not self.density.has_vector_scores or not inside.any():
            return {}
        return self.density.vector_scores(mean_descriptor(y, inside))

    @torch.no_grad()
    def score(
        self, y: torch.Tensor, c: torch.Tensor | None, needed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scores (B, d, h, w) of pooled maps (B, channels, d, h, w), a slab at a time.

        Slabs bound the memory of a large scan; they know as many neighbours as the density sees,
        so the result is that of the whole.

        Args:
            y, c: descriptor and condition map.
            needed: bool (d, h, w), positions that are asked for; a density without neighbours is
                evaluated there alone, and the others are 0. Maps are then of one scan, B = 1.
        """
        reach, depth = self.density.density.reach, y.shape[2]
        if needed is not None and reach == 0:
            return self._score_positions(y, c, needed)
        rows = max(1, _SLAB_POSITIONS // (y.shape[3] * y.shape[4]))
        slabs = []
        for first in range(0, depth, rows):
            last = min(first + rows, depth)
            low, high = max(0, first - reach), min(depth, last + reach)
            near = c if c is None else c[:, :, low:high]
            scores = -self.density.log_prob(y[:, :, low:high], near)
            slabs.append(scores[:, first - low : last - low])
        return torch.cat(slabs, dim=1)

    def _score_positions(
        self, y: torch.Tensor, c: torch.Tensor | None, needed: torch.Tensor
    ) -> torch.Tensor:
        scores = torch.zeros(needed.numel(), device=y.device)
        for places in needed.flatten().nonzero()[:, 0].split(_SLAB_POSITIONS):
            some, near = (
                None if maps is None else maps.flatten(2)[:, :, places, None, None]
                for maps in (y, c)
            )
            assert some is not None  # y is always there
            scores[places] = -self.density.log_prob(some, near).flatten()
        return scores.view(1, *needed.shape)
