"""The patches and scars of CutPaste, which its authors count, to be found voxel by voxel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from screener_nnu.baselines.painted import PaintedSegmentation
from screener_nnu.plans import Plan, Shape
from screener_nnu.setting_values import Fraction
from screener_nnu.synthetic.painter import Painter, Painting
from screener_nnu.synthetic.painter_contents import Contents
from screener_nnu.synthetic.painter_patches import paint_patches
from screener_nnu.synthetic.patch_boxes import Source
from screener_nnu.synthetic.patch_deformations import GAIN, GAMMA, OFFSET, Probabilities

_SCAR_CONTENTS = Contents(own=1.0, gain=GAIN, offset=OFFSET, gamma=GAMMA)


@dataclass(frozen=True)
class CutPasteSegmentationSettings:
    """Of a network that finds what CutPaste pastes.

    Attributes:
        patch: probability that an image gets a patch.
        scar: probability that it gets a scar, and no patch.
    """

    patch: Fraction = 1 / 3
    scar: Fraction = 1 / 3

    def __post_init__(self) -> None:
        """Refuses more than all images."""
        if self.patch + self.scar > 1:
            raise ValueError(f"patch {self.patch} and scar {self.scar} must be at most 1 together")


class CutPasteSegmentationMethod(PaintedSegmentation):
    """Pastes boxes of the image itself elsewhere, in other colours, and learns where they are.

    Sizes of patches are those of the plan's `pretext.medmix`.

    References:
        Li et al., CutPaste: self-supervised learning for anomaly detection and localization,
        CVPR 2021, arXiv 2104.04015.
    """

    Settings = CutPasteSegmentationSettings

    def __init__(self, plan: Plan, size: Shape, patch: float, scar: float) -> None:
        """Builds the network and the painter of scars."""
        super().__init__(plan, size)
        self.patch, self.scar = patch, scar
        self.medmix = plan.settings.pretext.medmix
        self.scars = Painter(self.spacing, ("scar",), _SCAR_CONTENTS)

    def paint(self, images: Tensor, bodies: Tensor, generator: torch.Generator) -> Painting:
        """Gives each image a patch, a scar or nothing."""
        drawn = torch.rand(len(images), generator=generator, device=images.device)
        patched = paint_patches(
            images,
            bodies,
            (drawn < self.patch).long(),
            1,
            Source.OWN,
            Probabilities(colours=1.0),
            self.medmix,
            generator,
        )
        scarred = self.scars.paint(images, bodies, generator)
        scars = (drawn >= self.patch) & (drawn < self.patch + self.scar)
        scars = scars.view(-1, 1, 1, 1, 1)
        pairs = zip(patched, scarred, strict=True)
        return Painting(*(torch.where(scars, scar, patch) for patch, scar in pairs))
