"""The patches of MedMix, which PMSACL counts, to be found voxel by voxel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from screener_nnu.baselines import OPTIONS
from screener_nnu.baselines.painted import PaintedSegmentation
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import Count
from screener_nnu.synthetic.painter import Painting
from screener_nnu.synthetic.painter_patches import paint_patches
from screener_nnu.synthetic.patch_boxes import Source
from screener_nnu.synthetic.patch_deformations import Probabilities


@dataclass(frozen=True)
class MedMixSegmentationSettings:
    """Of a network that finds the patches of MedMix.

    Attributes:
        patches: of an image, at most; 0, 1, ... of them are alike likely.
    """

    patches: Count = 3


class MedMixSegmentationMethod(PaintedSegmentation):
    """Pastes deformed boxes of other images, and learns where they are.

    Sizes and deformations are those of the plan's `pretext.medmix`.

    References:
        Tian et al., Self-supervised pseudo multi-class pre-training for unsupervised anomaly
        detection and segmentation in medical images, 2021, arXiv 2109.01303, section 3.1.
    """

    Settings = MedMixSegmentationSettings

    def __init__(self, plan: Plan, size: Shape, patches: int) -> None:
        """Builds the network."""
        super().__init__(plan, size)
        self.patches, self.medmix = patches, plan.settings.pretext.medmix

    def paint(self, images: Tensor, bodies: Tensor, generator: torch.Generator) -> Painting:
        """Pastes up to so many patches into each image."""
        most, device = self.patches, images.device
        counts = torch.randint(most + 1, (len(images),), generator=generator, device=device)
        probabilities = Probabilities(*(self.medmix.probability,) * 4)
        try:
            return paint_patches(
                images, bodies, counts, most, Source.OTHER, probabilities, self.medmix, generator
            )
        except ScreenerError as error:
            raise ScreenerError(
                f"{OPTIONS}.patches: {most} do not fit into an image of {list(self.size)} voxels "
                "without touching: set it, or the sizes of pretext.medmix, lower"
            ) from error
