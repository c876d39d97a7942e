"""Coarse features on the grid of a density, without a map of all voxels in between."""

from __future__ import annotations

from math import gcd

import torch
import torch.nn.functional as F

from screener_nnu.plans import Shape


def average_cells(
    cells: torch.Tensor, stride: Shape, shape: Shape, pooling: Shape = (1, 1, 1)
) -> torch.Tensor:
    """What average pooling gives of features that are constant in their cells.

    Nearest rather than linear values, as PaDiM has it (Defard et al., arXiv 2011.08785): between
    the centres of two cells a linear one is a mean of both and varies less, so one density for all
    positions would find the centres more anomalous than what lies between, in a pattern of the
    grid. It also makes a tile agree with the whole up to its border.

    Args:
        cells: features, (B, C, d, h, w); cell i covers voxels s i .. s i + s - 1.
        stride: voxels s of a cell, per axis.
        shape: (D, H, W) of the image; the last cells may reach beyond it.
        pooling: kernel and stride p of the average pooling.

    Returns:
        (B, C, D // p, H // p, W // p); memory is that of the result and of one finer axis.

    Example:
        >>> average_cells(torch.arange(3.0).view(1, 1, 1, 1, 3), (1, 1, 2), (1, 1, 6), (1, 1, 3))
        tensor([[[[[0.3333, 1.6667]]]]])
    """
    for axis, (s, size, p) in enumerate(zip(stride, shape, pooling, strict=True), start=2):
        unit = gcd(s, p)
        count, kernel = size // p, p // unit
        if s == unit:
            cells = cells.narrow(axis, 0, count * kernel)
        else:
            units = torch.arange(count * kernel, device=cells.device)
            cells = cells.index_select(axis, units // (s // unit))
        if kernel > 1:
            cells = cells.unflatten(axis, (count, kernel)).mean(axis + 1)
    return cells


def padded_to(image: torch.Tensor, multiple: Shape, value: float = 0.0) -> torch.Tensor:
    """The image (B, C, D, H, W) with voxels behind it up to a multiple per axis."""
    missing = [-size % m for size, m in zip(image.shape[2:], multiple, strict=True)]
    if not any(missing):
        return image
    return F.pad(image, [n for axis in reversed(missing) for n in (0, axis)], value=value)
