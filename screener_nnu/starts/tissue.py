"""Tissue by rule: labels that need nobody to draw them, as a stand-in for a supervised start."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from screener_nnu.devices import small_tensor
from screener_nnu.errors import ScreenerError
from screener_nnu.plans import Plan, Shape, Spacing
from screener_nnu.preprocessing.modality import CT, modality_of
from screener_nnu.sampling.smoothing import gaussian_smooth
from screener_nnu.starts.base import StartMethod

# Classes by their place; the first one is whatever is none of the others.
CLASSES = ("other", "lung and gas", "fat", "soft tissue", "contrast and marrow", "bone")
# Where a class begins (HU), and which one.
_EDGES = (-500.0, -150.0, -30.0, 90.0, 200.0)
_CLASSES_BETWEEN = (1, 0, 2, 3, 4, 5)
_SMOOTHED_MM = 1.0
_EPSILON = 1e-5


class Tissue(StartMethod):
    """Cross-entropy of all voxels and Dice of each tissue.

    It asks what any dense supervised start brings, and is no method of another group.
    """

    def __init__(self, plan: Plan, size: Shape) -> None:
        """Builds the network.

        Raises:
            ScreenerError: the plan is none of CT.
        """
        kind = modality_of(plan.settings.preprocessing)
        if kind.name != CT:
            raise ScreenerError(
                f"the start 'tissue' labels voxels by their Hounsfield units, and {plan.name} is a "
                f"plan of {kind.title}: train another start"
            )
        super().__init__(plan, size, len(CLASSES))
        self.spacing = plan.settings.preprocessing.spacing
        self.mean, self.std = plan.intensities.mean, max(plan.intensities.std, 1e-8)

    def forward(
        self, images: Tensor, bodies: Tensor, generator: torch.Generator, step: int, steps: int
    ) -> dict[str, Tensor]:
        """Both losses of the tissue that an image shows."""
        labels = tissue_labels(images.float() * self.std + self.mean, bodies, self.spacing)
        logits = self.network(images).float()
        return {
            "cross_entropy": F.cross_entropy(logits, labels),
            "dice": dice_loss(logits, labels),
        }


def tissue_labels(hu: Tensor, bodies: Tensor, spacing: Spacing) -> Tensor:
    """Places in `CLASSES` (B, D, H, W) of voxels.

    Args:
        hu: (B, 1, D, H, W); values beyond nnU-Net's bounds may be those.
        bodies: (B, 1, D, H, W) masks; outside is `other`.
        spacing: of the voxels (mm), for a smoothing of 1 mm.
    """
    z, y, x = (_SMOOTHED_MM / mm for mm in spacing)
    with torch.autocast(hu.device.type, enabled=False):
        smooth = gaussian_smooth(hu.float(), (z, y, x))[:, 0]
    edges, classes = (small_tensor(v, hu.device) for v in (_EDGES, _CLASSES_BETWEEN))
    labels = classes[torch.bucketize(smooth, edges, right=True)]
    return labels * bodies[:, 0]


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - mean Dice of all classes but the first, over a whole batch, in float32.

    Args:
        logits: (B, K, D, H, W).
        labels: (B, D, H, W).
    """
    shares = logits.float().softmax(1)
    truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
    axes = (0, 2, 3, 4)
    common, total = (shares * truth).sum(axes), (shares + truth).sum(axes)
    dice = (2 * common + _EPSILON) / (total + _EPSILON)
    return 1 - dice[1:].mean()
