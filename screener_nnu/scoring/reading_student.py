"""A student that reads the condition off its descriptor, and scores by its teacher's density."""

from __future__ import annotations

import torch
from torch import nn

from screener_nnu.conditions.positional import NoCondition
from screener_nnu.densities.standardised import StandardisedDensity
from screener_nnu.descriptors.base import CellDescriptor
from screener_nnu.descriptors.student_features import StudentFeatures
from screener_nnu.networks.probed import LevelPerceptron
from screener_nnu.networks.unet import in_full_precision
from screener_nnu.plans import Shape
from screener_nnu.scoring.teacher import FeatureExtractor, Teacher


class ReadingStudent(Teacher):
    """Anomaly score -log q(y | c) in nats, where c is what a head makes of the features.

    One pass of one network gives y and c. Where the teacher asks for the place in the scan, or for
    the map of a second network, the student needs neither.

    Args:
        features: of the teacher's descriptor.
        head: gives the standardised condition of each position.
        density: of the teacher.
        pooling: voxels of a position per axis.
        low_precision_cpu: see `low_precision`.
    """

    def __init__(
        self,
        features: StudentFeatures,
        head: LevelPerceptron,
        density: StandardisedDensity,
        pooling: Shape,
        low_precision_cpu: bool = False,
    ) -> None:
        """Joins the three."""
        descriptor = _DescriptorAndCondition(features, head, density)
        extractor = FeatureExtractor(descriptor, NoCondition(), pooling, low_precision_cpu)
        super().__init__(extractor, _OfBoth(density, features.described))  # type: ignore[arg-type]

    def scores(self, image: torch.Tensor) -> torch.Tensor:
        """Scores (B, d, h, w) of images (B, C, D, H, W), in full precision."""
        return -self.density.log_prob(self.features.descriptor.pooled(image, self.cell))  # type: ignore[operator]


class _DescriptorAndCondition(CellDescriptor):
    """Channels of y, and behind them those of c."""

    c_mean: torch.Tensor
    c_std: torch.Tensor

    def __init__(
        self, features: StudentFeatures, head: LevelPerceptron, density: StandardisedDensity
    ) -> None:
        super().__init__(features.described + len(density.c_mean), "with condition")
        self.features, self.head = features, head
        self.divisor = features.divisor
        # Of the density, and here once more: maps that are stored are found by a hash of these.
        self.register_buffer("c_mean", density.c_mean.clone())
        self.register_buffer("c_std", density.c_std.clone())

    @torch.no_grad()
    def pooled(self, image: torch.Tensor, pooling: Shape) -> torch.Tensor:
        """See `Descriptor.pooled`."""
        read, y = self.features.parted(self.features.pooled(image, pooling))
        with in_full_precision(image.device.type):
            c = condition_of(self.head, read, self.c_mean, self.c_std)
        return torch.cat([y, c], dim=1)


class _OfBoth(nn.Module):
    """A density of y given c, which takes both as one map."""

    has_vector_scores = False

    def __init__(self, density: StandardisedDensity, described: int) -> None:
        super().__init__()
        self.standardised, self._described = density, described

    @property
    def density(self) -> nn.Module:
        """That of the standardised maps."""
        return self.standardised.density

    def log_prob(self, maps: torch.Tensor, c: None = None) -> torch.Tensor:
        """Log-density (B, d, h, w) in nats of maps (B, channels, d, h, w)."""
        first = self._described
        return self.standardised.log_prob(maps[:, :first], maps[:, first:])


def condition_of(
    head: nn.Module, features: torch.Tensor, mean: torch.Tensor, std: torch.Tensor
) -> torch.Tensor:
    """The condition (B, d_cond, ...) as the teacher's networks would give it.

    Args:
        head: gives it standardised.
        features: maps (B, n, ...) that it reads, see `StudentFeatures.parted`.
        mean, std: of the conditions (d_cond,) that the density was trained with.
    """
    found: torch.Tensor = head(features)
    return found * std.view(1, -1, 1, 1, 1) + mean.view(1, -1, 1, 1, 1)
