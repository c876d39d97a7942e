"""Anomalies that are painted while a network learns: shape, content and blend, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from screener_nnu.devices import small_tensor
from screener_nnu.plans import Range, Spacing
from screener_nnu.sampling.colours import between
from screener_nnu.synthetic.painter_contents import Contents
from screener_nnu.synthetic.painter_shapes import Canvas, draw_shapes


class Painting(NamedTuple):
    """Images with anomalies.

    Attributes:
        images: (B, C, D, H, W).
        labels: how much of a voxel is that of the anomaly, (B, 1, D, H, W) from 0 to 1.
    """

    images: torch.Tensor
    labels: torch.Tensor

    @property
    def masks(self) -> torch.Tensor:
        """Voxels (B, 1, D, H, W) that may have changed."""
        return self.labels > 0


@dataclass(frozen=True)
class Painter:
    """Paints an anomaly into some images: (1 - label) of the image and label of the content.

    A label is the shape's mask times one factor alpha an image, smoothed, in the body.

    Attributes:
        spacing: voxel size (z, y, x) in mm; of pictures (1, 1, 1).
        shapes: names of `painter_shapes.SHAPES`, alike likely.
        contents: what they are filled with.
        probability: that an image gets an anomaly.
        alpha: smallest and largest one.
        sizes: smallest edge of boxes, balls and forms in mm, and the largest as a part of the
            image's.
        kernels: edges in voxels of the Gaussian kernels (standard deviation 1) that labels are
            smoothed with, alike likely; odd.
    """

    spacing: Spacing
    shapes: tuple[str, ...]
    contents: Contents
    probability: float = 1.0
    alpha: Range = (1.0, 1.0)
    sizes: Range = (10.0, 0.8)
    kernels: tuple[int, ...] = (1,)

    @torch.no_grad()
    def paint(
        self, images: torch.Tensor, bodies: torch.Tensor, generator: torch.Generator
    ) -> Painting:
        """Paints into a batch; voxels outside mask and body stay as they are.

        Args:
            images: (B, C, D, H, W) in [-1, 1].
            bodies: masks (B, 1, D, H, W).
            generator: on the device of the images.

        Returns:
            Images in [-1, 1], float32, and labels.
        """
        with torch.autocast(images.device.type, enabled=False):
            images = images.float()
            canvas = Canvas(bodies, self.spacing, self.sizes, generator)
            one = (1, 1, 1, 1)
            alpha = between(canvas.uniform(*one), self.alpha)
            alpha = alpha * (canvas.uniform(*one) < self.probability)
            labels = draw_shapes(canvas, self.shapes) * bodies * alpha
            if max(self.kernels) > 1:
                edges = small_tensor(self.kernels, images.device)
                edges = edges[canvas.choice(len(self.kernels))]
                labels = smoothed(labels, edges, max(self.kernels)) * bodies
            contents = self.contents.draw(images, self.spacing, generator)
            return Painting(images + labels * (contents - images), labels)


def smoothed(labels: torch.Tensor, edges: torch.Tensor, largest: int) -> torch.Tensor:
    """Gaussian means of standard deviation 1, cut off at kernels of an edge for each image.

    Args:
        labels: (B, 1, D, H, W); beyond the border they go on as they end.
        edges: odd, in voxels, (B,).
        largest: of them.

    Returns:
        The same shape; a kernel of 1 leaves an image as it is.
    """
    half = largest // 2
    offsets = torch.arange(-half, half + 1, device=labels.device)
    kernels = torch.exp(-0.5 * offsets**2) * (offsets.abs() <= (edges // 2)[:, None])
    kernels = kernels / kernels.sum(1, keepdim=True)
    batch = labels.transpose(0, 1)  # a group for each image
    for axis in (2, 3, 4):
        if labels.shape[axis] == 1:
            continue
        sides = [0] * 6
        sides[2 * (4 - axis)] = sides[2 * (4 - axis) + 1] = half
        shape = [len(labels), 1, 1, 1, 1]
        shape[axis] = largest
        padded = F.pad(batch, sides, mode="replicate")
        batch = F.conv3d(padded, kernels.view(shape), groups=len(labels))
    return batch.transpose(0, 1).clamp(0, 1)
