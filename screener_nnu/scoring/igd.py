"""Interpolated Gaussian descriptors as a detector: maps, and scores of whole images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from screener_nnu.igd_settings import LOCAL, IgdSettings
from screener_nnu.losses.igd import Similarity, reconstruction_loss, reconstruction_map
from screener_nnu.networks.igd import AutoEncoders
from screener_nnu.networks.unet import low_precision
from screener_nnu.plans import Shape
from screener_nnu.sampling.body_shares import BodyShares
from screener_nnu.sampling.patches import boxes_of, cut_patches, patch_starts

# Voxels of images that go through a network at once.
_VOXELS_AT_ONCE = 1 << 19


class Scale(NamedTuple):
    """What the scores of one model are divided by, their medians on held-out images.

    Attributes:
        map: of voxels.
        image: of whole images.
    """

    map: float = 1.0
    image: float = 1.0


class IgdDetector(nn.Module):
    """Scores of voxels from reconstructions, and of whole images from those and the Gaussian.

    A model sees images of one size. Larger ones are cut into such images, which overlap by half,
    smaller ones are filled up with 0, and scores are averaged where images overlap.

    Args:
        models: trained auto-encoders.
        settings: that they were trained with.
        scales: by model.
        low_precision_cpu: see `low_precision`.

    References:
        Chen et al., Deep one-class classification via interpolated Gaussian descriptor, AAAI 2022.
    """

    reads: Literal["equalised"] = "equalised"
    cell: Shape = (1, 1, 1)
    by_position = False

    def __init__(
        self,
        models: AutoEncoders,
        settings: IgdSettings,
        scales: Mapping[str, Scale] | None = None,
        low_precision_cpu: bool = False,
    ) -> None:
        """Keeps the models; without scales, scores are as they are."""
        super().__init__()
        self.models, self.settings = models, settings
        self.scales = {name: Scale() for name in models} | dict(scales or {})
        self.low_precision_cpu = low_precision_cpu
        self.similarities = {
            name: Similarity.of(self.models.named(name).size, name == LOCAL) for name in models
        }

    @torch.no_grad()
    def forward(
        self, image: torch.Tensor, start: torch.Tensor, extent: torch.Tensor
    ) -> torch.Tensor:
        """Scores (B, D, H, W) of tiles (B, C, D, H, W); what lies beyond the scan gets 0.

        Args:
            image: tiles, filled up where they reach beyond the scan.
            start: (B, 3) first voxel of each in its scan.
            extent: (B, 3) size of its scan.
        """
        sides = image.new_tensor(image.shape[2:]).long()
        held = torch.minimum(sides, extent - start).tolist()
        scores = image.new_zeros((len(image), *image.shape[2:]), dtype=torch.float32)
        for index, (z, y, x) in enumerate(held):
            own = image[index : index + 1, :, :z, :y, :x]
            scores[index, :z, :y, :x] = self.combined_map(own)[0]
        return scores

    def combined_map(self, image: torch.Tensor) -> torch.Tensor:
        """Scores (1, D, H, W) of any image (1, C, D, H, W), the mean of the models' scaled ones."""
        maps = [self.map_of(name, image) / self.scales[name].map for name in self.models]
        return torch.stack(maps).mean(0)

    @torch.no_grad()
    def map_of(self, name: str, image: torch.Tensor) -> torch.Tensor:
        """Scores (1, D, H, W) of one model, of any image (1, C, D, H, W)."""
        padded = self._filled_up(name, image)
        total = padded.new_zeros(padded.shape[2:], dtype=torch.float32)
        count = torch.zeros_like(total)
        for starts, images, decoded, _ in self._judged(name, padded):
            maps = reconstruction_map(images, decoded, self.similarities[name])
            for (z, y, x), one in zip(starts.tolist(), maps, strict=True):
                depth, height, width = one.shape
                place = (slice(z, z + depth), slice(y, y + height), slice(x, x + width))
                total[place] += one
                count[place] += 1
        depth, height, width = image.shape[2:]
        return (total / count)[None, :depth, :height, :width]

    @torch.no_grad()
    def image_scores(self, image: torch.Tensor, body: torch.Tensor) -> dict[str, float]:
        """Scores of a whole image: of each model, and `score`, the mean after division by scales.

        Args:
            image: (1, C, D, H, W).
            body: (1, 1, D, H, W) mask.
        """
        own = {name: self.image_score_of(name, image, body) for name in self.models}
        scaled = [value / self.scales[name].image for name, value in own.items()]
        return {"score": sum(scaled) / len(scaled), **own}

    @torch.no_grad()
    def image_score_of(self, name: str, image: torch.Tensor, body: torch.Tensor) -> float:
        """Score of a whole image by one model.

        It is xi L_rec + (1 - xi) (1 - g), of an image that is cut the highest one, among the parts
        that lie at least half in the body, where there are some.
        """
        padded, mask = self._filled_up(name, image), self._filled_up(name, body)
        model, xi = self.models.named(name), self.settings.xi(name)
        bodies = BodyShares(mask[:, 0])
        only = torch.zeros(1, dtype=torch.long, device=mask.device)
        scores, shares = [], []
        for starts, images, decoded, z in self._judged(name, padded):
            error = reconstruction_loss(images, decoded, self.settings.rho, self.similarities[name])
            scores.append(xi * error + (1 - xi) * (1 - model.normality(z)))
            shares.append(bodies.of(only, *boxes_of(starts, model.size))[0])
        found, inside = torch.cat(scores), torch.cat(shares) >= 0.5
        return float((found[inside] if inside.any() else found).max())

    def _filled_up(self, name: str, image: torch.Tensor) -> torch.Tensor:
        """An image that is at least as large as those of a model."""
        size = self.models.named(name).size
        missing = [max(0, n - m) for n, m in zip(size, image.shape[2:], strict=True)]
        return F.pad(image, [v for m in missing[::-1] for v in (0, m)])

    def _judged(
        self, name: str, image: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """First voxels (n, 3), images, reconstructions and latent vectors of the parts."""
        model = self.models.named(name)
        size: Shape = tuple(image.shape[2:])  # type: ignore[assignment]
        starts = torch.tensor(patch_starts(size, model.size), device=image.device)
        depth, height, width = model.size
        for some in starts.split(max(1, _VOXELS_AT_ONCE // (depth * height * width))):
            images = cut_patches(image, torch.zeros_like(some[:, 0]), some, model.size)
            with low_precision(image.device, self.low_precision_cpu):
                z, decoded, _ = model(images)
            yield some, images, decoded, z
