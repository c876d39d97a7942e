"""Patches that are pasted while a network learns, another number of them into each image."""

from __future__ import annotations

import torch

from screener_nnu.pretext_settings import MedMixSettings
from screener_nnu.synthetic.medmix import paste_patches
from screener_nnu.synthetic.painter import Painting
from screener_nnu.synthetic.patch_boxes import Source
from screener_nnu.synthetic.patch_deformations import Probabilities


@torch.no_grad()
def paint_patches(
    images: torch.Tensor,
    bodies: torch.Tensor,
    counts: torch.Tensor,
    most: int,
    source: Source,
    probabilities: Probabilities,
    settings: MedMixSettings,
    generator: torch.Generator,
) -> Painting:
    """Pastes patches; one image alone gets patches of itself. Nothing outside the body changes.

    Args:
        images: (B, C, D, H, W) in [-1, 1].
        bodies: masks (B, 1, D, H, W).
        counts: patches of each image, (B,), at most `most`.
        most: of them.
        source: where they are taken from.
        probabilities: of their deformations.
        settings: of their sizes.
        generator: on the device of the images.

    Returns:
        Images in [-1, 1], float32, and labels that are 0 or 1.

    Raises:
        ScreenerError: so many patches do not fit into an image.
    """
    source = source if len(images) > 1 else Source.OWN
    with torch.autocast(images.device.type, enabled=False):
        images = images.float()
        pasted, numbers = paste_patches(
            (images + 1) / 2, most, generator, settings, bodies[:, 0], source, probabilities
        )
        kept = (numbers > 0) & (numbers <= counts.view(-1, 1, 1, 1, 1)) & bodies
        return Painting(torch.where(kept, pasted * 2 - 1, images), kept.float())
