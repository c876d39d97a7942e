"""Weak views: crops, mirror images and other colours, which leave the class of an image as it is.

SimCLR's (Chen et al., ICML 2020, arXiv 2002.05709, appendix A), each image by itself. Of pictures:

    crop        a part of the area, uniform in `crop_scale`; its height over its width, as parts of
                the picture's, between 3/4 and 4/3, or what fits; resized to the whole
    mirror      left and right
    colours     brightness, contrast and saturation times a factor, uniform in 1 - s to 1 + s for a
                strength s of the settings; hue turned by at most `hue`; in this order, together
    grey        of colour pictures
    blur        Gaussian, in plane

Of volumes: a crop whose edges are drawn one by one and may exceed the image, mirror images along y
and x, and the project's `colour_jitter`. Beyond the border an image goes on as it ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from screener_nnu.devices import small_tensor
from screener_nnu.plans import JitterSettings, Range, Spacing
from screener_nnu.pretext_settings import ViewSettings
from screener_nnu.sampling.colours import between, colour_matrices, grey_level, is_coloured
from screener_nnu.sampling.jitter import blur_in_plane, colour_jitter

_ASPECT = 4 / 3
# A patch of which a view shows less is taken as cut away.
_LEAST_LEFT = 0.25


def weak_views(
    images: torch.Tensor,
    generator: torch.Generator,
    settings: ViewSettings,
    jitter: JitterSettings,
    spacing: Spacing | None = None,
    masks: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One view of each image.

    Args:
        images: (B, C, D, H, W) in [0, 1]; pictures have one slice.
        generator: on the device of the images.
        settings: of the views.
        jitter: colours of volumes.
        spacing: voxel size (mm) of the images, for the blur of volumes; 1 mm without it.
        masks: (B, 1, D, H, W) of any type, cropped and mirrored as the images are.

    Returns:
        Views of the shape of the images, and their masks, the nearest voxel's value of each.
    """
    crops = _Crops.draw(images, generator, settings)
    with torch.autocast(images.device.type, enabled=False):
        views = crops.of_images(images.float())
        if images.shape[2] == 1:
            views = _blurred(_recoloured(views, generator, settings), generator, settings)
        else:
            in_plane = (spacing or (1.0, 1.0, 1.0))[1:]
            sizes = crops.edge[:, 1:].abs() * small_tensor(in_plane, views.device)
            least = min(in_plane) * settings.crop_edge[0]
            views = colour_jitter(views, sizes, jitter, generator, least)
    return views, None if masks is None else crops.of_masks(masks)


def patches_left(masks: torch.Tensor, views: torch.Tensor, count: int) -> torch.Tensor:
    """How many patches of each image are still to be seen in its view.

    A patch is seen where it covers a quarter of the voxels at least that it covers in the image. So
    one that was cut off counts the more, the more the rest is enlarged.

    Args:
        masks: of the images, the number of the patch that a voxel lies in, (B, 1, D, H, W).
        views: what `weak_views` made of them.
        count: patches of an image.

    Returns:
        (B,), from 0 to `count`.
    """
    left = torch.zeros(len(masks), dtype=torch.long, device=masks.device)
    for number in range(1, count + 1):
        before, after = ((m == number).flatten(1).sum(1) for m in (masks, views))
        left += (after >= _LEAST_LEFT * before) & (after > 0)
    return left


@dataclass(frozen=True)
class _Crops:
    """What part of its image each view shows.

    Attributes:
        origin: where a view begins, from 0 to 1 over the image, (B, 3).
        edge: of the view, as a part of the image's, negative where it is mirrored, (B, 3).
    """

    origin: torch.Tensor
    edge: torch.Tensor

    @classmethod
    def draw(
        cls, images: torch.Tensor, generator: torch.Generator, settings: ViewSettings
    ) -> _Crops:
        count, pictures = len(images), images.shape[2] == 1
        numbers = torch.rand(3, count, 3, generator=generator, device=images.device)
        if pictures:
            edge = _picture_edges(numbers[0], settings.crop_scale)
        else:
            edge = between(numbers[0], settings.crop_edge)
        free = 1 - edge
        # A crop lies in its image, and one that is larger holds all of it.
        origin = free * numbers[1]
        mirrored = numbers[2] < settings.flip
        mirrored[:, : 2 if pictures else 1] = False
        return cls(torch.where(mirrored, origin + edge, origin), torch.where(mirrored, -edge, edge))

    def _places(self, axis: int, count: int) -> torch.Tensor:
        """Voxels (B, n) of the image that the voxels of a view lie at along an axis."""
        steps = (torch.arange(count, device=self.edge.device) + 0.5) / count
        along = self.origin[:, axis, None] + self.edge[:, axis, None] * steps
        return (along * count - 0.5).clamp(0, count - 1)

    def of_images(self, images: torch.Tensor) -> torch.Tensor:
        """Views (B, C, D, H, W), linear between voxels."""
        if images.shape[2] == 1:
            return self._of_planes(images[:, :, 0])[:, :, None]
        # Axis by axis with a matrix each: a tenth of the time of `grid_sample` on processors.
        for axis, count in enumerate(images.shape[2:]):
            images = _along(images, axis, self._weights(axis, count))
        return images

    def _of_planes(self, images: torch.Tensor) -> torch.Tensor:
        """Of images (B, C, H, W)."""
        (_, _, rows, columns) = images.shape
        y = self._places(1, rows)[:, :, None].expand(-1, -1, columns)
        x = self._places(2, columns)[:, None].expand(-1, rows, -1)
        grid = torch.stack([(2 * x + 1) / columns - 1, (2 * y + 1) / rows - 1], -1)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def _weights(self, axis: int, count: int) -> torch.Tensor:
        """Weights (B, n, n) of the image's voxels in those of the view along an axis."""
        places = self._places(axis, count)
        voxels = torch.arange(count, device=places.device)
        return (1 - (places[:, :, None] - voxels).abs()).clamp_min(0)

    def of_masks(self, masks: torch.Tensor) -> torch.Tensor:
        """Masks of the views, (B, 1, D, H, W)."""
        z, y, x = (self._places(i, n).round().long() for i, n in enumerate(masks.shape[2:]))
        images = torch.arange(len(masks), device=masks.device)[:, None, None, None]
        return masks[images, 0, z[:, :, None, None], y[:, None, :, None], x[:, None, None]][:, None]


def _picture_edges(numbers: torch.Tensor, scale: Range) -> torch.Tensor:
    """Edges (B, 3) of crops of pictures, as parts of theirs."""
    area = between(numbers[:, 0], scale)
    aspect = torch.exp((2 * numbers[:, 1] - 1) * math.log(_ASPECT))
    # At most the whole picture: an area near it leaves no choice of shape.
    height = (area * aspect).sqrt().maximum(area).clamp(max=1)
    return torch.stack([torch.ones_like(area), height, area / height], dim=1)


def _along(images: torch.Tensor, axis: int, weights: torch.Tensor) -> torch.Tensor:
    """Images (B, C, D, H, W) times (B, m, n) along the axis of z, y or x."""
    if axis == 0:
        return (weights[:, None] @ images.flatten(3)).unflatten(3, images.shape[3:])
    if axis == 1:
        return weights[:, None, None] @ images
    return images @ weights.mT[:, None, None]


def _recoloured(
    views: torch.Tensor, generator: torch.Generator, settings: ViewSettings
) -> torch.Tensor:
    """Other colours of pictures, or none at all."""
    numbers = torch.rand(6, len(views), generator=generator, device=views.device)
    applied = numbers[0] < settings.jitter
    strengths = settings.brightness, settings.contrast, settings.saturation, settings.hue
    brightness, contrast, saturation, turns = (
        s * (2 * n - 1) * applied for s, n in zip(strengths, numbers[1:], strict=False)
    )
    colours = views.flatten(2)
    # A mean that brightness has changed as well; matrices of colours leave it as it is.
    mean = grey_level(colours.mean(2, keepdim=True)) * (1 + brightness)[:, None, None]
    offset = -contrast[:, None, None] * mean
    factor = ((1 + brightness) * (1 + contrast))[:, None, None]
    if is_coloured(views):
        kept = numbers[5] >= settings.grey
        matrices = factor * colour_matrices((1 + saturation) * kept, turns)
    else:
        matrices = factor
    return torch.baddbmm(offset, matrices, colours).clamp_(0, 1).view_as(views)


def _blurred(
    views: torch.Tensor, generator: torch.Generator, settings: ViewSettings
) -> torch.Tensor:
    numbers = torch.rand(2, len(views), generator=generator, device=views.device)
    sigma = between(numbers[0], settings.blur_sigma) * (numbers[1] < settings.blur)
    return blur_in_plane(views, sigma[:, None].expand(-1, 2), settings.blur_sigma[1])
