"""MedMix: patches of other images, deformed and pasted into an image as if they were lesions.

Tian et al., *Self-supervised Pseudo Multi-class Pre-training for Unsupervised Anomaly Detection and
Segmentation in Medical Images*, 2021, arXiv 2109.01303, section 3.1.
"""

from __future__ import annotations

import torch

from screener_nnu.pretext_settings import MedMixSettings
from screener_nnu.synthetic.patch_boxes import Source, draw_boxes
from screener_nnu.synthetic.patch_deformations import Deformations, Probabilities
from screener_nnu.synthetic.patch_voxels import PatchVoxels


def medmix(
    images: torch.Tensor,
    count: int,
    generator: torch.Generator,
    settings: MedMixSettings,
    bodies: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pastes so many deformed patches of other images of the batch into each image.

    Args:
        images: (B, C, D, H, W) in [0, 1]; pictures have one slice.
        count: patches of an image; with 0 it stays as it is.
        generator: on the device of the images.
        settings: sizes, the probability of each deformation, and the least part in the body.
        bodies: masks (B, D, H, W); without them all is body.

    Returns:
        Images of the same shape, and masks, uint8 (B, 1, D, H, W): the number of the patch, from 1
        on, that a voxel lies in, and 0 where the image is as it was.

    Raises:
        ScreenerError: the batch has one image, or so many patches do not fit into an image.
    """
    probabilities = Probabilities(*(settings.probability,) * 4)
    return paste_patches(images, count, generator, settings, bodies, Source.OTHER, probabilities)


def paste_patches(
    images: torch.Tensor,
    count: int,
    generator: torch.Generator,
    settings: MedMixSettings,
    bodies: torch.Tensor | None,
    source: Source,
    probabilities: Probabilities,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pastes patches of a source, deformed with these probabilities; see `medmix`."""
    masks = images.new_zeros((len(images), 1, *images.shape[2:]), dtype=torch.uint8)
    if count == 0:
        return images, masks
    boxes, total = draw_boxes(images.shape, count, source, generator, settings, bodies)
    voxels = PatchVoxels.of(boxes, total)
    pictures = images.shape[2] == 1
    deformations = Deformations.draw(len(boxes.number), pictures, probabilities, generator)
    values = voxels.sample(images, deformations.warp(voxels))
    values = deformations.recolour(values, voxels, generator)
    pasted = images.clone(memory_format=torch.contiguous_format)
    pasted.view(-1)[voxels.target(pasted.shape)] = values.to(pasted.dtype)
    numbers = voxels.spread(boxes.number).to(masks.dtype)
    masks.view(-1)[voxels.target(masks.shape)] = numbers[None]
    return pasted, masks
