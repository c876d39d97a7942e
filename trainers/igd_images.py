"""What the models of the IGD stage see of a batch: whole images, and patches of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from screener_nnu.igd_settings import GLOBAL
from screener_nnu.inference.igd import image_sizes
from screener_nnu.plans import Plan
from screener_nnu.sampling.patches import cut_patches, draw_patches, patch_starts
from screener_nnu.sampling.randomness import torch_generator
from screener_nnu.trainers.image_reading import ImageReader, ImageSample, image_reader, on_grid

# At least and at most of them stand for all images.
_SOME_IMAGES = (32, 512)


class IgdImages:
    """Reads images of a plan's cases and cuts them for its models.

    Args:
        plan: with the sizes of images.
        folder: of the cases.
        device: of the images.

    Attributes:
        size: of whole images, (z, y, x).
    """

    def __init__(self, plan: Plan, folder: Path, device: torch.device) -> None:
        """Reads nothing yet."""
        self.plan, self.folder, self.device = plan, folder, device
        self.settings = plan.settings
        self.sizes = image_sizes(plan)
        self.size = self.settings.image_size(self.settings.igd.image_size)

    def reader(self, names: tuple[str, ...], stage: str) -> ImageReader:
        """Reads images of some cases, which cover `size` on the plan's grid."""
        return image_reader(self.plan, self.folder, names, stage, self.size)

    def whole(self, samples: list[ImageSample]) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, C, *size) of samples, and their body masks (B, 1, *size)."""
        return on_grid(samples, self.size, self.device)

    def some_of_models(self, names: tuple[str, ...]) -> Iterator[dict[str, torch.Tensor]]:
        """Images of each model, see `of_models`, that stand for all images of some cases.

        They are those of one case after the other; every call gives the same ones.
        """
        stage = "igd centre"
        reader = self.reader(names, stage)
        for index in range(int(np.clip(len(names), *_SOME_IMAGES))):
            generator = torch_generator(self.device, self.settings.seed, stage, index)
            yield self.of_models([reader[index]], generator)

    def of_models(
        self, samples: list[ImageSample], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Images of each model: whole ones, and patches, those in the body first.

        Args:
            samples: of a batch.
            generator: of the patches, on the device.
        """
        images, bodies = self.whole(samples)
        found = {}
        for name, size in self.sizes.items():
            if name == GLOBAL:
                found[name] = images
                continue
            starts = torch.tensor(patch_starts(self.size, size), device=self.device)
            count = self.settings.igd.patches or len(starts)
            found[name] = cut_patches(
                images, *draw_patches(bodies, starts, size, count, generator), size
            )
        return found
