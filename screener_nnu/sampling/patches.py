"""Patches of one size on a grid that covers an image."""

from __future__ import annotations

from itertools import product

import torch

from screener_nnu.devices import small_tensor
from screener_nnu.plans import Shape
from screener_nnu.sampling.body_shares import BodyShares


def patch_starts(size: Shape, patch: Shape) -> list[Shape]:
    """First voxels of patches that cover an image and overlap by about half.

    Args:
        size: of the image, at least that of a patch.
        patch: size of a patch.

    Example:
        >>> patch_starts((1, 32, 48), (1, 32, 32))
        [(0, 0, 0), (0, 0, 16)]
        >>> len(patch_starts((1, 256, 256), (1, 32, 32)))
        225
    """
    axes = (_starts(n, p) for n, p in zip(size, patch, strict=True))
    return list(product(*axes))  # type: ignore[arg-type]


def _starts(length: int, edge: int) -> list[int]:
    free = length - edge
    steps = -(-free // max(1, edge // 2))
    return [round(free * i / steps) for i in range(steps + 1)] if steps else [0]


def cut_patches(
    images: torch.Tensor, index: torch.Tensor, starts: torch.Tensor, patch: Shape
) -> torch.Tensor:
    """Patches (n, C, *patch) of images (B, C, D, H, W).

    Args:
        images: that they are cut from.
        index: (n,) which image each is of.
        starts: (n, 3) first voxels.
        patch: size of a patch.
    """
    offsets = (torch.arange(edge, device=images.device) for edge in patch)
    z, y, x = (starts[:, axis, None] + offset for axis, offset in enumerate(offsets))
    cut = images[
        index[:, None, None, None],
        :,
        z[:, :, None, None],
        y[:, None, :, None],
        x[:, None, None, :],
    ]
    return cut.movedim(-1, 1)


def draw_patches(
    bodies: torch.Tensor, starts: torch.Tensor, patch: Shape, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Index and starts of `count` patches of each image, drawn without replacement.

    Those that lie at least half in the body are taken before the others.

    Args:
        bodies: (B, 1, D, H, W) body masks of the images.
        starts: (n, 3) that are drawn from, see `patch_starts`.
        patch: size of a patch.
        count: of patches; at most n are drawn.
        generator: on the device of the images.

    Returns:
        (B count,) image of each, and (B count, 3) its first voxel.
    """
    draws = torch.rand(len(bodies), len(starts), generator=generator, device=bodies.device)
    images = torch.arange(len(bodies), device=bodies.device)
    shares = BodyShares(bodies[:, 0]).of(images, *boxes_of(starts, patch, len(bodies)))
    chosen = (draws + (shares >= 0.5)).topk(min(count, len(starts)), dim=1).indices
    index = images.repeat_interleave(chosen.shape[1])
    return index, starts[chosen.flatten()]


def boxes_of(
    starts: torch.Tensor, patch: Shape, images: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches that begin at (n, 3) in every image, as `BodyShares` takes boxes.

    Returns:
        First voxels (images, n, 3), and edges (3,).
    """
    return starts.expand(images, -1, -1), small_tensor(patch, starts.device)
