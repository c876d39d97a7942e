"""Patched diffusion: a box of an image is noised, and estimated from what lies around it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from screener_nnu.baselines.reconstruction import ReconstructionMethod
from screener_nnu.crop_methods import body_mean
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import Plan, Shape
from screener_nnu.sampling.noise import octave_noise
from screener_nnu.setting_values import Count, OneOf, Within

#: Levels of noise.
LEVELS = 1000
_OFFSET, _MOST_BETA = 0.008, 0.999
_OCTAVES = "octaves"
# Of the fields at test, which are the same for every image.
_TEST_SEED = 499


@dataclass(frozen=True)
class DiffusionSettings:
    """Of patched diffusion.

    Attributes:
        noise: `octaves`, coarse and fine, or `white`.
        test_level: level of noise at test, as a share of the highest one.
        draws: fields of noise at test whose reconstructions are averaged.
        debias: subtract the median of the differences of an image before they are a score.
    """

    noise: Annotated[str, OneOf(_OCTAVES, "white")] = _OCTAVES
    test_level: Annotated[float, Within(above=0, at_most=1)] = 0.5
    draws: Count = 1
    debias: bool = False


class DiffusionMethod(ReconstructionMethod):
    """The plan's UNet estimates a clean box of an image from its noised version.

    Boxes are the halves of each axis: eight of a volume, four of a picture. The network sees the
    image with one box noised, the mask of the box, and the level of noise in it (from 0 to 1, and
    0 outside: instance normalisation would throw away a number that is the same everywhere). Its
    loss is the absolute difference in box and body. At test every box is estimated once for each
    of `draws` fields of noise, which are the same for every image and every call.

    References:
        Behrendt et al., Patched diffusion models for unsupervised anomaly detection in brain MRI,
        MIDL 2023; cosine schedule of Nichol and Dhariwal, Improved denoising diffusion
        probabilistic models, ICML 2021.
    """

    Settings = DiffusionSettings
    kept: Tensor
    boxes: Tensor
    fields: Tensor

    def __init__(
        self, plan: Plan, size: Shape, noise: str, test_level: float, draws: int, debias: bool
    ) -> None:
        """Builds the network, the boxes and the fields of noise at test."""
        super().__init__(plan, size)
        self.network = build_unet(plan, plan.channels + 2, plan.channels)
        self.noise, self.debias = noise, debias
        self.test_level = max(0, math.floor(test_level * LEVELS) - 1)
        generator = torch.Generator().manual_seed(_TEST_SEED)
        # All three are made of settings: a checkpoint need not hold them.
        self.register_buffer("kept", cosine_schedule(), persistent=False)
        self.register_buffer("boxes", halves(size), persistent=False)
        fields = self.draw((draws, plan.channels, *size), generator)
        self.register_buffer("fields", fields, persistent=False)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Noise (B, C, D, H, W) of unit variance, on the device of the generator."""
        if self.noise == _OCTAVES:
            return octave_noise(shape, generator)
        return torch.randn(shape, generator=generator, device=generator.device)

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Difference of clean images and estimates, in the box and the body."""
        count, device = len(images), images.device
        levels = torch.randint(LEVELS, (count,), generator=generator, device=device)
        chosen = torch.randint(len(self.boxes), (count,), generator=generator, device=device)
        boxes = self.boxes[chosen]
        noise = self.draw(tuple(images.shape), generator)
        clean = self.network(self.given(images, boxes, levels, noise))
        return {"l1": body_mean((clean.float() - images).abs(), bodies & boxes)}

    def noised(self, images: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """Images of a level of noise, q(x_t | x).

        Args:
            images, noise: (B, C, D, H, W).
            levels: (B,), from 0 on.
        """
        kept = self.kept[levels][:, None, None, None, None]
        return kept.sqrt() * images + (1 - kept).sqrt() * noise

    def given(self, images: Tensor, boxes: Tensor, levels: Tensor, noise: Tensor) -> Tensor:
        """What the network sees (B, C + 2, D, H, W): images with a noised box, box and level.

        Args:
            images, noise: (B, C, D, H, W).
            boxes: (B, 1, D, H, W), True in the box.
            levels: (B,).
        """
        mixed = torch.where(boxes, self.noised(images, levels, noise), images)
        share = (levels.float() / LEVELS)[:, None, None, None, None]
        return torch.cat([mixed, boxes.float(), boxes * share], 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """The estimates of all boxes, put together; mean over the fields of noise."""
        levels = torch.full((len(images),), self.test_level, device=images.device)
        total = torch.zeros_like(images)
        for field in self.fields:
            noise = field.expand_as(images)
            for box in self.boxes:
                boxes = box.expand(len(images), *box.shape)
                clean = self.network(self.given(images, boxes, levels, noise))
                total += boxes * clean.float()
        return total / len(self.fields)


def cosine_schedule() -> Tensor:
    """What is left of an image's variance at each level (alpha bar), (1000,), float32."""
    steps = torch.arange(LEVELS + 1, dtype=torch.float64) / LEVELS
    f = torch.cos((steps + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2
    betas = (1 - f[1:] / f[:-1]).clamp_max(_MOST_BETA)
    return torch.cumprod(1 - betas, 0).float()


def halves(size: Shape) -> Tensor:
    """Masks (8, 1, D, H, W) of the boxes that halve each axis; 4 where an axis is one voxel.

    Of an odd axis the second half has the voxel more.
    """
    sides = [[(0, n)] if n == 1 else [(0, n // 2), (n // 2, n)] for n in size]
    corners = list(itertools.product(*sides))
    boxes = torch.zeros(len(corners), 1, *size, dtype=torch.bool)
    for box, corner in zip(boxes, corners, strict=True):
        z, y, x = (slice(*ends) for ends in corner)
        box[:, z, y, x] = True
    return boxes
