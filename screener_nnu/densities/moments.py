"""Moments of many rows, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

# Rows that are copied to float64 at a time.
_ROWS = 1 << 14


def mean_and_scatter(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and scatter matrix, sum of (y - mean)(y - mean)^T, of rows.

    Two passes, for a sum of squares minus a squared sum cancels when the mean is large; on the
    CPU, so that the result is that of every device.

    Args:
        rows: (N, d) with N >= 1, on any device.

    Returns:
        (d,) and (d, d), float64, on the CPU.

    Example:
        >>> mean_and_scatter(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))[1].tolist()
        [[2.0, 4.0], [4.0, 8.0]]
    """
    blocks = rows.cpu().split(_ROWS)
    mean = torch.stack([block.double().sum(dim=0) for block in blocks]).sum(dim=0) / len(rows)
    scatter = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in blocks:
        residual = block.double() - mean
        scatter += residual.T @ residual
    return mean, scatter
