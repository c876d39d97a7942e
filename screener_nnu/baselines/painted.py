"""What methods share that paint anomalies into normal images, and learn to find them."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from screener_nnu.baselines.base import BaselineMethod
from screener_nnu.losses.segmentation import supervised_cross_entropy
from screener_nnu.networks.unet import build_unet
from screener_nnu.plans import Plan, Shape, Spacing
from screener_nnu.synthetic.painter import Painting


class PaintedMethod(BaselineMethod):
    """A method that sees anomalies of its own making alone.

    Attributes:
        spacing: voxel size (z, y, x) of images in mm; of pictures (1, 1, 1), a pixel.
    """

    # Foreign tissue in a soft shape is nearly what they learn from.
    resembles = ("pasted",)

    def __init__(self, plan: Plan, size: Shape) -> None:
        """Keeps what lengths are measured in."""
        super().__init__(plan, size)
        spacing = plan.settings.preprocessing.spacing
        self.spacing: Spacing = spacing if size[0] > 1 else (1.0, 1.0, 1.0)

    @abstractmethod
    def paint(self, images: Tensor, bodies: Tensor, generator: torch.Generator) -> Painting:
        """Images with anomalies, and which voxels they are.

        Args:
            images: (B, C, D, H, W) in [-1, 1].
            bodies: masks (B, 1, D, H, W).
            generator: on the device of the images.
        """


class PaintedSegmentation(PaintedMethod):
    """The plan's UNet, which is asked for the label of each voxel; the score is its logit.

    Outputs of all resolutions of the decoder learn, each half as much as the next finer one.
    """

    def __init__(self, plan: Plan, size: Shape) -> None:
        """Builds the network."""
        super().__init__(plan, size)
        self.network = build_unet(plan, plan.channels, 1, deep_supervision=True)

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Cross-entropy of the labels of what is painted."""
        painting = self.paint(images, bodies, generator)
        outputs = self.network(painting.images)
        return {"cross_entropy": supervised_cross_entropy(outputs, painting.labels, bodies)}

    def score(self, images: Tensor) -> Tensor:
        """Logits; probabilities near 1 would be alike."""
        logits: Tensor = self.network(images)[0][:, 0]
        return logits
