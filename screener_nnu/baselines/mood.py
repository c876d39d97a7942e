"""MOOD-Top1: a UNet that tells how much of a voxel is foreign tissue."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from screener_nnu.baselines.painted import PaintedSegmentation
from screener_nnu.devices import small_tensor
from screener_nnu.plans import Plan, Range, Shape
from screener_nnu.sampling.jitter import colour_jitter
from screener_nnu.setting_values import Fraction, Positive, Rising
from screener_nnu.synthetic.painter import Painter, Painting
from screener_nnu.synthetic.painter_contents import Contents

# As published: patches are changed by each of these with a probability of 0.2.
_CONTENTS = Contents(probability=0.2, turn=1.0, offset=(-0.2, 0.2), noise=0.2)
_KERNELS = (1, 1, 1, 1, 3, 3, 5, 7)
# Of images that are smaller than the published ones (160 voxels an axis), larger kernels than this
# part of the longest edge would wash small anomalies out.
_LARGEST_KERNEL = 0.1


@dataclass(frozen=True)
class MoodSettings:
    """Of MOOD-Top1.

    Attributes:
        probability: that an image gets an anomaly.
        alpha: smallest and largest part of foreign tissue in an anomaly.
        smallest: edge of an anomaly in mm; of pictures in pixels.
        largest: edge of one, as a part of the image's.
        augmentation: probability of each step of the plan's colour jitter, before painting.
    """

    probability: Fraction = 0.9
    alpha: Annotated[tuple[Fraction, Fraction], Rising()] = (0.3, 1.0)
    smallest: Positive = 10.0
    largest: Fraction = 0.8
    augmentation: Fraction = 0.1


class MoodMethod(PaintedSegmentation):
    """Blends boxes, balls and free forms of other images in, and learns the soft label.

    References:
        Marimont and Tarroni, Achieving state-of-the-art performance in the Medical
        Out-of-Distribution (MOOD) challenge using plausible synthetic anomalies, 2023; best of
        both tasks in 2022.
    """

    Settings = MoodSettings

    def __init__(
        self,
        plan: Plan,
        size: Shape,
        probability: float,
        alpha: Range,
        smallest: float,
        largest: float,
        augmentation: float,
    ) -> None:
        """Builds the network and the painter."""
        super().__init__(plan, size)
        self.jitter = replace(plan.settings.jitter, probability=augmentation)
        kernels = tuple(k for k in _KERNELS if k == 1 or k <= _LARGEST_KERNEL * max(size))
        self.painter = Painter(
            self.spacing,
            ("box", "ball", "form"),
            _CONTENTS,
            probability,
            alpha,
            (smallest, largest),
            kernels,
        )

    def paint(self, images: Tensor, bodies: Tensor, generator: torch.Generator) -> Painting:
        """Changes colours of bodies, then paints."""
        if self.jitter.probability > 0:
            images = self._jittered(images, bodies, generator)
        return self.painter.paint(images, bodies, generator)

    def _jittered(self, images: Tensor, bodies: Tensor, generator: torch.Generator) -> Tensor:
        """What lies outside the body stays as it is."""
        in_plane = small_tensor(self.spacing[1:], images.device).expand(len(images), 2)
        with torch.autocast(images.device.type, enabled=False):
            grey = (images.float() + 1) / 2
            least = min(self.spacing[1:])
            changed = colour_jitter(grey, in_plane, self.jitter, generator, least)
            return torch.where(bodies, changed * 2 - 1, images)
